"""A logged model is served in an environment with its requirements and without recsys."""

import json
import os
import signal
import socket
import subprocess
import sysconfig
import time
import urllib.request
import venv
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import Distribution, distribution
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from packaging.requirements import Requirement

import recsys
from recsys.config.schema import Config
from recsys.errors import InputError
from recsys.serving import saved_model
from recsys.serving.fold_in import with_histories
from recsys.serving.recommend import recommend
from recsys.serving.saved_model import SavedModel
from recsys.tracking.connection import open_tracking
from recsys.tracking.served_code import signature_of
from recsys.tracking.served_model import ServedModel
from tests.serving.test_saved_model import make_model
from tests.tracking.server import GIVE_UP_SECONDS

SITE = Path(sysconfig.get_path("purelib"))


def make_folding_model() -> SavedModel:
    """A model of users 10, 11 and 12, of whom the first has no training positive."""
    training = {"loss": "squared", "l2": 0.1}
    config = {"model": {"name": "inner_product", "embedding_dim": 4}, "training": training}
    return replace(
        make_model("inner_product"),
        config=Config.model_validate(config),
        is_trained=np.array([False, True, True]),
        metrics={"n_positives": 3},
    )


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an MLflow model, as it was logged."""
    folder = tmp_path_factory.mktemp("logged")
    saved_model.save(folder / "model", make_folding_model())
    tracking = open_tracking(Config(), folder)
    assert tracking is not None
    run_id = tracking.start_run("m", {}, {})
    tracking.log_model(run_id, folder / "model")
    (described,) = folder.rglob("MLmodel")
    return described.parent


def installed_for(requirements: list[str]) -> dict[str, Distribution]:
    """The distributions that pip would install for requirements, by name."""
    found: dict[str, Distribution] = {}
    wanted = [Requirement(line) for line in requirements]
    while wanted:
        requirement = wanted.pop()
        if requirement.name in found:
            continue
        found[requirement.name] = distribution(requirement.name)
        below = [Requirement(line) for line in found[requirement.name].requires or ()]
        extras = ("", *requirement.extras)
        wanted += [
            r
            for r in below
            if r.marker is None or any(r.marker.evaluate({"extra": extra}) for extra in extras)
        ]
    return found


@pytest.fixture(scope="module")
def environment(logged: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with the model's requirements alone."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    for found in installed_for((logged / "requirements.txt").read_text().splitlines()).values():
        for name in {file.parts[0] for file in found.files or ()} - {"..", "__pycache__"}:
            if not (site / name).exists():
                (site / name).symlink_to(SITE / name)
    command = folder / "bin" / "uvicorn"  # as pip writes it
    command.write_text(f"#!{folder}/bin/python\nfrom uvicorn.main import main\n\nmain()\n")
    command.chmod(0o755)
    return folder / "bin" / "python"


def outside(**values: str) -> dict[str, str]:
    """The environment variables of whoever knows nothing of this checkout."""
    return {
        name: value
        for name, value in os.environ.items()
        if name not in ("PYTHONPATH", "VIRTUAL_ENV")
    } | values


def test_the_requirements_are_those_of_serving(logged: Path) -> None:
    lines = [Requirement(line) for line in (logged / "requirements.txt").read_text().splitlines()]
    assert [line.name for line in lines] == [
        *("mlflow", "numpy", "pandas", "pyarrow", "pydantic", "ruamel.yaml", "safetensors", "torch")
    ]
    for line in lines:
        assert str(line.specifier) == f"=={distribution(line.name).version.partition('+')[0]}"
        assert line.specifier.contains(distribution(line.name).version)
    # Nowhere else, such as conda.yaml, is the package index asked for recsys.
    assert not [file.name for file in logged.glob("*.y*ml") if "recsys==" in file.read_text()]


def test_the_code_comes_with_the_model_and_the_data_do_not(logged: Path) -> None:
    here = Path(recsys.__file__).parent
    files = {
        path.relative_to(logged / "code" / "recsys")
        for path in (logged / "code").rglob("*")
        if path.is_file()
    }
    assert files == {path.relative_to(here) for path in here.rglob("*.py")}


LOAD = """
import json, sys
from importlib.util import find_spec
assert find_spec("recsys") is None
import mlflow, pandas
model = mlflow.pyfunc.load_model(sys.argv[1])
answer = model.predict(pandas.DataFrame({"user_id": [12, 11]}), params={"k": 3})
answer = answer.astype(object).where(answer.notna(), None)
print(json.dumps({"answer": answer.to_dict("list"), "from": sys.modules["recsys"].__file__}))
"""


def test_it_loads_where_recsys_is_not_installed(
    logged: Path, environment: Path, tmp_path: Path
) -> None:
    command = [str(environment), "-c", LOAD, str(logged)]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=outside(),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    expected = recommend(make_folding_model(), [12, 11], 3).to_pydict()
    assert found["answer"] == expected | {"score": pytest.approx(expected["score"], abs=1e-6)}
    assert found["from"] == str(logged / "code" / "recsys" / "__init__.py")


@pytest.fixture
def served(logged: Path, environment: Path, tmp_path: Path) -> Iterator[str]:
    """The address of `mlflow models serve` for the model."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    path = os.pathsep.join([str(environment.parent), os.environ["PATH"]])
    command = [
        str(environment),
        "-m",
        "mlflow",
        "models",
        "serve",
        "-m",
        str(logged),
        "--env-manager",
        "local",
        "--port",
        str(port),
    ]
    log = tmp_path / "log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command,
            cwd=tmp_path,
            env=outside(PATH=path),
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
    end = time.monotonic() + GIVE_UP_SECONDS
    try:
        while True:
            assert process.poll() is None, log.read_text()
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5).close()
                break
            except OSError:
                assert time.monotonic() < end, log.read_text()
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)


def ask(served: str, frame: dict[str, list[object]]) -> pd.DataFrame:
    request = urllib.request.Request(
        f"{served}/invocations",
        json.dumps({"dataframe_split": frame, "params": {"k": 3}}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return pd.DataFrame(json.load(answer)["predictions"])


def test_it_is_served_where_recsys_is_not_installed(served: str) -> None:
    model = make_folding_model()
    users = ask(served, {"columns": ["user_id"], "data": [[12], [11]]})
    check_equal(users, recommend(model, [12, 11], 3))
    # The second one has no item of the data.
    histories = [[8, 3, 5555], [5555], [99]]
    new = ask(served, {"columns": ["history"], "data": [[items] for items in histories]})
    check_equal(new, recommend(with_histories(model, histories, pa.array([0, 1, 2])), [0, 2], 3))
    named = ask(served, {"columns": ["history", "user_id"], "data": [[[8, 3], 11], [[99], 77]]})
    assert named["user_id"].tolist() == [11, 11, 11, 77, 77, 77]
    assert named["item_id"].tolist() == new["item_id"].tolist()


def check_equal(found: pd.DataFrame, table: pa.Table) -> None:
    expected = table.to_pandas()
    assert list(found.columns) == ["user_id", "rank", "item_id", "score", "title"]
    for column in ("user_id", "rank", "item_id"):
        assert found[column].tolist() == expected[column].tolist()
    assert found["score"].tolist() == pytest.approx(expected["score"].tolist(), abs=1e-6)


def test_the_signature_has_the_types_of_the_ids() -> None:
    signature = signature_of(replace(make_folding_model(), item_ids=pa.array(list("abcde"))))
    assert signature.inputs.to_dict() == [
        {"type": "long", "name": "user_id", "required": False},
        {
            "type": "array",
            "items": {"type": "string"},
            "name": "history",
            "required": False,
        },
    ]
    types = {column["name"]: column["type"] for column in signature.outputs.to_dict()}
    assert types == {
        "user_id": "long",
        "rank": "long",
        "item_id": "string",
        "score": "float",
        "title": "string",
    }


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"user_id": [11, 12], "history": [[3], None]},
            "history: must be a list in each row, but got none for user_id 12.",
        ),
        ({"user": [11]}, "input: must have a column user_id or history, but got user."),
    ],
)
def test_input_that_names_no_user(columns: dict[str, list[object]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        served_here(make_folding_model()).predict(None, pd.DataFrame(columns))


def test_a_model_with_embeddings_of_its_users_alone_refuses_histories() -> None:
    with pytest.raises(InputError, match="must read histories, or be trained by least squares"):
        served_here(make_model()).predict(None, pd.DataFrame({"user_id": [12], "history": [[3]]}))


@pytest.mark.parametrize("histories", [[[5555]], [[]], []])
def test_users_without_an_item_of_the_data_get_no_recommendations(histories: list[object]) -> None:
    served = served_here(make_folding_model())
    found = served.predict(None, pd.DataFrame({"history": histories}), {"k": 3})
    assert list(found.columns) == ["user_id", "rank", "item_id", "score", "title"]
    assert found.empty


def served_here(model: SavedModel) -> ServedModel:
    served = ServedModel()
    served.saved = model
    return served
