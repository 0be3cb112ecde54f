import logging
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from recsys.config.schema import Config, config_paths, replace_values
from recsys.errors import InputError
from recsys.tracking.connection import open_tracking
from recsys.tracking.runs import trial_params
from recsys.tracking.uri import tracking_uri
from recsys.tracking.versions import version_tags


@pytest.fixture
def unhealthy() -> Iterator[str]:
    """The address of a server that answers every request with 500."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(500)

        def log_message(self, *_args: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def with_uri(uri: str, **values: object) -> Config:
    return replace_values(
        Config(),
        {"tracking.uri": uri, **{f"tracking.{name}": value for name, value in values.items()}},
    )


def test_the_address_of_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tracking_uri(Config(), tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
    assert tracking_uri(Config(), Path("experiments")) == "sqlite:///experiments/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://elsewhere")
    assert tracking_uri(Config(), tmp_path) == "http://elsewhere"
    assert tracking_uri(with_uri("http://here"), tmp_path) == "http://here"


def test_a_store_whose_creation_was_interrupted_does_not_exist(tmp_path: Path) -> None:
    # A process is killed while MLflow creates its tables; MLflow would not open an incomplete set.
    code = (
        "import os, pathlib, sqlalchemy\n"
        "from recsys.config.schema import Config\n"
        "from recsys.tracking.connection import open_tracking\n"
        "@sqlalchemy.event.listens_for(sqlalchemy.Engine, 'before_cursor_execute')\n"
        "def die(connection, cursor, statement, *rest):\n"
        "    if 'UPDATE alembic_version' in statement: os.kill(os.getpid(), 9)\n"
        "open_tracking(Config(), pathlib.Path.cwd())\n"
    )
    killed = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, timeout=300, check=False
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert not (tmp_path / "mlflow.db").exists()
    assert open_tracking(Config(), tmp_path) is not None


def test_a_store_of_its_own(tmp_path: Path) -> None:
    tracking = open_tracking(
        replace_values(Config(), {"tracking.experiment": "mine"}), tmp_path / "new"
    )
    assert tracking is not None
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/new/mlflow.db")
    experiment = client.get_experiment_by_name("mine")
    assert experiment is not None
    assert experiment.artifact_location == (tmp_path / "new" / "artifacts").as_uri()
    # Opened again, it is the same.
    again = open_tracking(
        replace_values(Config(), {"tracking.experiment": "mine"}), tmp_path / "new"
    )
    assert again is not None
    assert again.experiment_id == experiment.experiment_id
    run_id = tracking.start_run("s", {}, {})
    assert tracking.lifecycle(run_id) == "active"
    tracking.delete_run(run_id)
    assert tracking.lifecycle(run_id) == "deleted"
    assert tracking.lifecycle("0" * 32) is None
    # A tag that is too long for MLflow is cut, and an unknown one is no reason to fail.
    run_id = tracking.start_run("long", {"text": "x" * 10_000}, {"a": None, "b": 1e-3})
    data = client.get_run(run_id).data
    assert set(data.tags["text"]) == {"x"}
    assert data.params == {"a": "None", "b": "0.001"}


@pytest.mark.parametrize("required", [True, False])
def test_a_server_that_does_not_answer(
    tmp_path: Path, required: bool, caplog: pytest.LogCaptureFixture
) -> None:
    config = with_uri("http://127.0.0.1:9", required=required)
    message = (
        r"tracking\.uri: must be a reachable MLflow store, but got http://127\.0\.0\.1:9 "
        r"\(.*refused.*\)\. Start its server"
    )
    if required:
        with pytest.raises(InputError, match=message):
            open_tracking(config, tmp_path)
        return
    with caplog.at_level(logging.WARNING, "recsys"):
        assert open_tracking(config, tmp_path) is None
    assert "MLflow at http://127.0.0.1:9 cannot be reached" in caplog.text
    assert not list(tmp_path.iterdir())


def test_a_server_that_is_ill(tmp_path: Path, unhealthy: str) -> None:
    with pytest.raises(InputError, match=r"but got http://127\.0\.0\.1:\d+ \(500 Server Error"):
        open_tracking(with_uri(unhealthy), tmp_path)


@pytest.mark.parametrize(
    "uri", ["mlruns", "nothing://at/all", "sqlite:////proc/no/such/folder/mlflow.db"]
)
def test_an_invalid_store(tmp_path: Path, uri: str) -> None:
    with pytest.raises(InputError, match="must be a reachable MLflow store, but got"):
        open_tracking(with_uri(uri), tmp_path)


def test_params_are_flat_and_complete() -> None:
    params = trial_params(replace_values(Config(), {"training.learning_rate": 0.5}))
    assert params["training.learning_rate"] == 0.5
    assert set(params) == {
        path for path in config_paths() if path.partition(".")[0] in ("model", "training")
    }


def test_versions() -> None:
    tags = version_tags()
    assert {
        "version.recsys",
        "version.ray",
        "version.torch",
        "version.optuna",
        "version.mlflow",
    } <= set(tags)
    assert tags["version.recsys"] == "0.1.0"


FIRST_START = """
import sys
from pathlib import Path
from recsys.config.schema import Config, replace_values
from recsys.tracking.connection import open_tracking

print("imported", flush=True)
uri, folder = sys.stdin.readline().strip(), Path(sys.argv[1])
config = replace_values(Config(), {"tracking.uri": uri or None, "tracking.experiment": "new"})
print(open_tracking(config, folder).experiment_id)
"""


@pytest.mark.parametrize("store", ["database", "server"])
def test_first_starts_at_the_same_time(
    tmp_path: Path, store: str, request: pytest.FixtureRequest
) -> None:
    uri = request.getfixturevalue("mlflow_server") if store == "server" else ""
    command, pipe = [sys.executable, "-c", FIRST_START, str(tmp_path / "empty")], subprocess.PIPE
    processes = [
        subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) for _ in range(2)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "imported\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(f"{uri}\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=240) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    (experiment,) = {out.strip() for out, _ in outputs}
    found = MlflowClient(
        tracking_uri=uri or f"sqlite:///{tmp_path / 'empty' / 'mlflow.db'}"
    ).get_experiment_by_name("new")
    assert found is not None
    assert found.experiment_id == experiment


def test_a_damaged_database(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("no database")
    with pytest.raises(
        InputError,
        match=r"but got sqlite:///.*mlflow\.db \(it is damaged, or .*: file is not a database\)",
    ):
        open_tracking(Config(), tmp_path)
    assert open_tracking(replace_values(Config(), {"tracking.required": False}), tmp_path) is None
    assert (tmp_path / "mlflow.db").read_text() == "no database"
