"""No input runs code: pickles in place of any file, tags of YAML, links out of a folder."""

import os
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray.data.extensions

from recsys import evaluate, preprocess, recommend, train, tune
from recsys.config.files import dump_yaml
from recsys.config.yaml_text import parse_yaml
from recsys.data.manifest import read_manifest
from recsys.data.processed import Processed, item_ids
from recsys.data.readers.titles import read_titles
from recsys.data.sources.files import DataFile
from recsys.search.record.study_folder import StudyFolder
from tests.commands.in_process import answer, run
from tests.small_search import SPACE, open_optuna, ratings_csv

ROOT = Path(__file__).parents[1]


class Hostile:
    """Object that creates a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.mknod, (str(self.mark),)  # type: ignore[return-value]


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """The file that exists once the pickle was loaded."""
    return tmp_path / "unpickled"


@pytest.fixture
def payload(mark: Path) -> bytes:
    content = pickle.dumps(Hostile(mark))
    pickle.loads(content)
    assert mark.exists()  # the pickle works
    mark.unlink()
    return content


def pickled_column(payload: bytes, n: int) -> pa.Array:
    """A column of the type by which Ray Data stores objects."""
    return pa.ExtensionArray.from_storage(
        ray.data.extensions.ArrowPythonObjectType(), pa.array([payload] * n, pa.large_binary())
    )


def nested_column(payload: bytes, n: int) -> pa.Array:
    return pa.ListArray.from_arrays(list(range(n + 1)), pickled_column(payload, n))


NUMBERS = pa.array(range(40))


@pytest.mark.parametrize("column", ["user", "item", "rating", "timestamp", "title"])
@pytest.mark.parametrize("make", [pickled_column, nested_column])
def test_a_column_of_pickles(
    ray_here: None,
    tmp_path: Path,
    mark: Path,
    payload: bytes,
    column: str,
    make: Callable[[bytes, int], pa.Array],
) -> None:
    columns = {
        "user": NUMBERS,
        "item": NUMBERS,
        "rating": NUMBERS,
        "timestamp": NUMBERS,
        column: make(payload, 40),
    }
    pq.write_table(pa.table(columns), tmp_path / "data.parquet")
    code, out, err = run(
        preprocess.main, "--data", tmp_path / "data.parquet", "--dir", tmp_path / "exp"
    )
    assert (code, out) == (2, "")
    assert f"error: data.parquet, column {column}: must hold plain values, but holds " in err
    assert not mark.exists()


def test_titles_of_pickles(tmp_path: Path, mark: Path, payload: bytes) -> None:
    pq.write_table(
        pa.table({"item": NUMBERS, "title": pickled_column(payload, 40)}),
        tmp_path / "movies.parquet",
    )
    with pytest.raises(ValueError, match=r"movies\.parquet, column title: must hold plain values"):
        read_titles(DataFile(str(tmp_path / "movies.parquet")))
    assert not mark.exists()


@pytest.mark.parametrize("name", ["data.csv", "data.parquet", "data.csv.gz", "data.zip", "u.data"])
def test_a_pickle_in_the_place_of_data(
    tmp_path: Path, mark: Path, payload: bytes, name: str
) -> None:
    (tmp_path / name).write_bytes(payload)
    code, out, err = run(preprocess.main, "--data", tmp_path / name, "--dir", tmp_path / "exp")
    assert (code, out) == (2, "")
    assert err.startswith(
        f"error: {name}: must be CSV, TSV, gzip, zip or Parquet, but it is binary."
    )
    assert not mark.exists()


@pytest.fixture(scope="module")
def home(ray_here: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small study `s`, its data and a model `c`."""
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "ratings.csv").write_text(ratings_csv())
    (folder / "space.yaml").write_text(dump_yaml(SPACE))
    (folder / "c.yaml").write_text(
        "{training: {max_epochs: 1}, model: {name: gmf, embedding_dim: 4}}"
    )
    places = ["--data", folder / "ratings.csv", "--dir", folder]
    answer(
        tune.main,
        "--space",
        folder / "space.yaml",
        *places,
        "--name",
        "s",
        "--trials",
        2,
        "--max-epochs",
        1,
        "--concurrent",
        1,
    )
    answer(train.main, "--config", folder / "c.yaml", *places)
    return folder


def test_a_study_full_of_pickles(home: Path, mark: Path, payload: bytes) -> None:
    study = home / "studies" / "s"
    foreign = (
        "tuner.pkl",
        "trainable.pkl",
        "searcher-state-1.pkl",
        "experiment_state-1.json",
        ".tmp_generator",
        "sampler.pkl",
    )
    for name in (
        *foreign,
        "best.yaml",
        "trials.parquet",
        "trials/2/checkpoint.safetensors",
        "trials/tuner.pkl",
    ):
        (study / name).parent.mkdir(exist_ok=True)
        (study / name).write_bytes(payload)
    code, _, err = run(tune.main, "--name", "s", "--resume", "--trials", 4, "--dir", home)
    # Only the third trial fails: its checkpoint is a pickle. The search overwrites its own files.
    assert code == 0, err
    assert [trial.state.name for trial in open_optuna(study).trials] == [
        "COMPLETE",
        "COMPLETE",
        "FAIL",
        "COMPLETE",
    ]
    assert parse_yaml((study / "best.yaml").read_text(), "best.yaml")["training"]["max_epochs"] == 1
    assert not mark.exists()


@pytest.mark.parametrize("file", ["config.yaml", "space.yaml"])
@pytest.mark.parametrize(
    "tag", ["!!python/object/apply:os.mknod [{mark}]", "!!python/name:os.mknod", "!mine {{a: 1}}"]
)
def test_tags_in_a_study(home: Path, tmp_path: Path, mark: Path, file: str, tag: str) -> None:
    study = tmp_path / "studies" / "s"
    shutil.copytree(home / "studies" / "s", study)
    (study / file).write_text(f"model: {tag.format(mark=mark)}\n")
    with pytest.raises(
        ValueError,
        match=(
            rf"{file}, line 1, column 8: must be valid YAML, but got could not determine a constr"
        ),
    ):
        (StudyFolder.config if file == "config.yaml" else StudyFolder.space)(StudyFolder(study))
    assert not mark.exists()


def test_processed_data_of_pickles(home: Path, tmp_path: Path, mark: Path, payload: bytes) -> None:
    (made,) = (home / "processed").glob("*/manifest.json")
    path = tmp_path / "processed"
    shutil.copytree(made.parent, path)
    manifest = read_manifest(path)
    assert manifest is not None
    table = pq.read_table(path / "items.parquet")
    table = table.set_column(
        table.column_names.index("item_id"), "item_id", pickled_column(payload, len(table))
    )
    pq.write_table(table, path / "items.parquet")
    with pytest.raises(ValueError, match=r"items\.parquet, column item_id: must hold plain values"):
        item_ids(Processed(path, path.name, manifest)).to_pylist()
    assert not mark.exists()


def pickled_users(model: Path, payload: bytes) -> None:
    table = pq.read_table(model / "users.parquet")
    pq.write_table(
        table.set_column(1, "user_id", pickled_column(payload, len(table))), model / "users.parquet"
    )


def foreign_first_column(model: Path, payload: bytes) -> None:
    table = pq.read_table(model / "items.parquet")
    pq.write_table(
        table.add_column(0, "first", pickled_column(payload, len(table))), model / "items.parquet"
    )


def overwrite(name: str) -> Callable[[Path, bytes], None]:
    def spoil(model: Path, payload: bytes) -> None:
        (model / name).write_bytes(payload)

    return spoil


def link_out(model: Path, _payload: bytes) -> None:
    outside = model.parent / "outside.json"
    (model / "metrics.json").rename(outside)
    (model / "metrics.json").symlink_to(outside)


MODELS: dict[str, tuple[Callable[[Path, bytes], None], str]] = {
    "pickled weights": (
        overwrite("model.safetensors"),
        "model.safetensors: must be an intact file of this model",
    ),
    "pickled config": (overwrite("config.yaml"), "config.yaml: must be UTF-8 text"),
    "pickled metrics": (
        overwrite("metrics.json"),
        "metrics.json: must be an intact file of this model",
    ),
    "pickled items": (
        overwrite("items.parquet"),
        "items.parquet: must be an intact file of this model",
    ),
    "users of pickles": (
        pickled_users,
        "users.parquet: must be an intact file of this model, but got no column user_id of type",
    ),
    "foreign pickle": (
        overwrite("python_model.pkl"),
        "m: must have only a model's own files, but got python_model.pkl.",
    ),
    "foreign weights": (
        overwrite("pytorch_model.bin"),
        "m: must have only a model's own files, but got pytorch_model.bin.",
    ),
    "link out of the folder": (
        link_out,
        "m: must have only a model's own files, but got metrics.json.",
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_hostile_model(home: Path, tmp_path: Path, mark: Path, payload: bytes, name: str) -> None:
    spoil, message = MODELS[name]
    shutil.copytree(home / "models" / "c", tmp_path / "m")
    spoil(tmp_path / "m", payload)
    asked: list[tuple[Callable[[list[str]], int], list[Any]]] = [
        (evaluate.main, []),
        (recommend.main, ["--all-users"]),
    ]
    for main, argv in asked:
        # On a slow machine lines of progress would come before the error.
        code, out, err = run(main, "--quiet", "--model", tmp_path / "m", "--dir", home, *argv)
        assert (code, out) == (2, "")
        assert err.startswith("error: ")
        assert message in err
    assert not mark.exists()


def test_a_foreign_column_is_not_read(
    home: Path, tmp_path: Path, mark: Path, payload: bytes
) -> None:
    shutil.copytree(home / "models" / "c", tmp_path / "m")
    foreign_first_column(tmp_path / "m", payload)
    assert "1" in answer(recommend.main, "--model", tmp_path / "m", "--user", 1, "--dir", home)
    assert not mark.exists()


def test_recsys_itself_unpickles_nothing() -> None:
    unpickling = re.compile(
        r"\b(pickle|cloudpickle|dill|joblib|marshal|shelve|torch\.load|np\.load|allow_pickle"
        r"|read_pickle)\b"
    )
    assert unpickling.search("state = torch.load(path)")
    # By path: modules of two packages may have one name.
    sources = {
        path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
        for path in (ROOT / "recsys").rglob("*.py")
    }
    assert {"recsys/serving/saved_model.py", "recsys/training/contract.py"} <= sources.keys()
    assert [name for name, source in sources.items() if unpickling.search(source)] == []
