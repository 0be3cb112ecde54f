"""Two commands at the same time in one folder, the first of its kind included."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from recsys.config.files import dump_yaml
from tests.faults.listening import listening
from tests.faults.search_process import GIVE_UP_SECONDS, n_reports, started
from tests.small_search import SPACE, logged_steps, logged_trials, open_optuna, ratings_csv

N_TRIALS = 3


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder in which no command has run: its `exp` does not exist."""
    (tmp_path / "ratings.csv").write_text(ratings_csv())
    (tmp_path / "space.yaml").write_text(dump_yaml(SPACE))
    return tmp_path


def leftovers(folder: Path) -> list[str]:
    """Return the temporary files that a command should have moved or deleted."""
    return [str(path) for path in folder.rglob("*.tmp")]


def test_two_first_searches(folder: Path) -> None:
    flags = [
        "--space",
        folder / "space.yaml",
        "--data",
        folder / "ratings.csv",
        "--trials",
        N_TRIALS,
        "--max-epochs",
        2,
    ]
    flags += ["--dir", folder / "exp", "--set", "training.batch_size=128", "--concurrent", 1]
    with (
        started(folder, *flags, "--name", "s") as one,
        started(folder, *flags, "--name", "two") as two,
    ):
        one.wait_until(lambda: n_reports(folder / "exp") >= 1)
        addresses = listening(one.process.pid)
        ended = {name: search.end() for name, search in {"s": one, "two": two}.items()}
    # Ray's own processes and the workers, which the driver started.
    assert len(addresses) >= 4
    assert {address for address in addresses if not address.is_loopback} == set()
    answers: dict[str, dict[str, Any]] = {}
    for name, (code, answers[name], errors) in ended.items():
        assert code == 0, errors
        assert "Traceback" not in errors
        trials = open_optuna(folder / "exp" / "studies" / name).trials
        assert [(t.number, t.state.name in ("COMPLETE", "PRUNED")) for t in trials] == [
            (n, True) for n in range(N_TRIALS)
        ]
    uri = f"sqlite:///{folder / 'exp' / 'mlflow.db'}"
    runs = logged_trials(uri, "recsys")
    assert Counter(run.data.tags["study"] for run in runs) == {"s": N_TRIALS, "two": N_TRIALS}
    for run in runs:
        study = run.data.tags["study"]
        assert run.info.status == "FINISHED"
        assert run.data.tags["mlflow.parentRunId"] == answers[study]["mlflow"]["parent_run_id"]
        epochs = answers[study]["trials"][int(run.data.tags["trial"])]["epochs"]
        assert logged_steps(uri, run, "val_ndcg_at_10") == list(range(1, epochs + 1))
    assert [found.name for found in MlflowClient(tracking_uri=uri).search_experiments()].count(
        "recsys"
    ) == 1
    assert len(list((folder / "exp" / "processed").glob("*/manifest.json"))) == 1
    assert leftovers(folder) == []


def test_two_first_preprocessings_of_the_same_data(folder: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "recsys.preprocess",
        "--data",
        "ratings.csv",
        "--dir",
        "exp",
        "--json",
    ]
    pipe = subprocess.PIPE
    processes = [
        subprocess.Popen(command, cwd=folder, stdout=pipe, stderr=pipe, text=True) for _ in range(2)
    ]
    outputs = [process.communicate(timeout=GIVE_UP_SECONDS) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    first, second = (json.loads(out) for out, _ in outputs)
    assert first == second
    assert (first["n_users"], first["n_interactions"]) == (60, 840)
    manifest = json.loads((folder / first["path"] / "manifest.json").read_text())
    assert {path.name for path in (folder / first["path"]).iterdir()} == {
        *manifest["files"],
        "manifest.json",
    }
    assert leftovers(folder) == []
