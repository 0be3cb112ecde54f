"""A search with its record and MLflow in PostgreSQL, and no trace of the password."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import optuna
import pytest
import sqlalchemy

from recsys import evaluate, tune
from recsys.config.files import dump_yaml, read_yaml
from recsys.storage.credentials import strip_password
from tests.commands import in_process
from tests.postgres import PASSWORD, UNESCAPED, needs_postgres, running_postgres
from tests.small_search import SPACE, logged_steps, logged_trials

pytestmark = needs_postgres


@pytest.fixture(scope="module")
def databases() -> Iterator[dict[str, str]]:
    with running_postgres("studies", "runs") as found:
        yield found


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A folder for temporary files with a short path, as Ray creates sockets in it."""
    folder = Path(tempfile.mkdtemp(prefix="t-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def run(temporary: Path, *argv: object, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *map(str, argv)]
    environment = {
        **os.environ,
        "TMPDIR": str(temporary),
        "RAY_TMPDIR": str(temporary),
        **variables,
    }
    return subprocess.run(
        command, capture_output=True, text=True, timeout=500, check=False, env=environment
    )


def rows_of(url: str) -> Iterator[str]:
    """Every row of every table of a database, as text."""
    engine = sqlalchemy.create_engine(url)
    with engine.connect() as connection:
        for table in sqlalchemy.inspect(engine).get_table_names():
            yield from map(str, connection.execute(sqlalchemy.text(f'SELECT * FROM "{table}"')))
    engine.dispose()


def test_a_study_in_postgresql(
    databases: dict[str, str],
    ratings: Path,
    tmp_path: Path,
    temporary: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "space.yaml").write_text(dump_yaml(SPACE))
    places = [
        "--set",
        f"study.storage={databases['studies']}",
        "--set",
        f"tracking.uri={databases['runs']}",
    ]
    variables = {
        "RECSYS_STUDY_STORAGE": databases["studies"],
        "RECSYS_TRACKING_URI": databases["runs"],
    }
    folder = ["--dir", tmp_path / "exp"]
    search = [*folder, "--name", "s", "--set", "training.batch_size=128", "--max-epochs", 2]
    search += ["--concurrent", 1]
    begun = run(
        temporary,
        "recsys.tune",
        *search,
        *places,
        "--space",
        tmp_path / "space.yaml",
        "--data",
        ratings,
        "--trials",
        3,
    )
    assert begun.returncode == 0, begun.stderr
    study = tmp_path / "exp" / "studies" / "s"
    started = read_yaml(study / "config.yaml")
    assert started["study"]["storage"] == strip_password(databases["studies"])
    assert started["tracking"]["uri"] == strip_password(databases["runs"])

    # This process knows the password by now.
    forgotten = run(temporary, "recsys.tune", *search, "--resume", "--trials", 4)
    assert forgotten.returncode == 2
    shown = strip_password(databases["studies"])
    expected = f"error: study.storage: must be a database that can be reached, but got {shown} ("
    assert forgotten.stderr.startswith(expected)
    resumed = run(temporary, "recsys.tune", *search, "--resume", "--trials", 4, **variables)
    assert resumed.returncode == 0, resumed.stderr
    trained = run(temporary, "recsys.train", "--best-of", "s", *folder, **variables)
    assert trained.returncode == 0, trained.stderr
    model = tmp_path / "exp" / "models" / "s"
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    evaluated = in_process.run(evaluate.main, "--model", model, *folder)
    assert evaluated.code == 0, evaluated.err

    name = read_yaml(study / "optuna.yaml")["study_name"]
    assert name.startswith("s-")
    record = optuna.load_study(study_name=name, storage=databases["studies"])
    assert [trial.number for trial in record.trials] == [0, 1, 2, 3]
    runs = logged_trials(databases["runs"], "recsys")
    assert [run.data.tags["trial"] for run in runs] == ["0", "1", "2", "3"]
    for trial, logged in zip(record.trials, runs, strict=True):
        assert logged_steps(databases["runs"], logged, "val_ndcg_at_10") == sorted(
            trial.intermediate_values
        )
        assert logged.info.artifact_uri.startswith(f"file://{tmp_path}/exp/artifacts/")
    assert not (study / "optuna.db").exists()
    assert not (tmp_path / "exp" / "mlflow.db").exists()

    output = evaluated.out + evaluated.err
    output += "".join(done.stdout + done.stderr for done in (begun, forgotten, resumed, trained))
    files = {
        path: path.read_bytes()
        for top in (tmp_path, temporary)
        for path in top.rglob("*")
        if path.is_file()
    }
    assert any("session_" in str(path) for path in files)
    for secret in (PASSWORD, quote(PASSWORD, safe=""), quote(PASSWORD, safe=UNESCAPED), "s3cret"):
        assert secret not in output
        assert [str(path) for path, content in files.items() if secret.encode() in content] == []
        assert [row for url in databases.values() for row in rows_of(url) if secret in row] == []


def test_a_database_that_does_not_let_us_in(
    databases: dict[str, str], ratings: Path, tmp_path: Path
) -> None:
    (tmp_path / "space.yaml").write_text(dump_yaml(SPACE))
    search = ["--dir", tmp_path / "exp", "--space", tmp_path / "space.yaml", "--data", ratings]
    wrong = databases["runs"].replace("s3cret", "guessed")
    refused = in_process.run(tune.main, *search, "--set", f"tracking.uri={wrong}")
    assert refused.code == 2
    assert "password authentication failed" in refused.err
    assert "guessed" not in refused.err
    both = [f"{name}={databases['runs']}" for name in ("study.storage", "tracking.uri")]
    refused = in_process.run(tune.main, *search, "--set", both[0], "--set", both[1])
    assert refused.code == 2
    assert refused.err.startswith(
        "error: tracking.uri: must be another database than study.storage, but got postgresql://"
    )
    assert PASSWORD not in refused.err
