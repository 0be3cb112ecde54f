"""Searches through Ray Tune: killed workers, failures, divergence, shares of GPUs."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from ray.tune import Callback
from ray.tune.experiment import Trial

from recsys.config.files import load_config
from recsys.errors import InputError
from recsys.search.record.study_folder import StudyFolder
from recsys.search.record.summaries import best_trial
from recsys.search.tuning import run
from recsys.search.tuning.trainable import TrialRunner
from tests.small_search import (
    Results,
    Searched,
    logged_steps,
    logged_trials,
    open_optuna,
    search,
    violated,
)

DYING, FAILING, N_EPOCHS = 1, 2, 3


class FailingRunner(TrialRunner):
    """A worker that raises in the second epoch of one trial, in each attempt."""

    def step(self) -> dict[str, Any]:
        if self.config["number"] == FAILING and self.iteration == 1:
            raise RuntimeError("made to fail")
        return super().step()


class KillOnce(Callback):
    """Callback that kills a trial's worker after its first epoch and notes Tune's retries."""

    def __init__(self) -> None:
        self.killed: int | None = None
        self.retried: list[int] = []

    def on_trial_result(
        self,
        iteration: int,
        trials: list[Trial],
        trial: Trial,
        result: dict[str, Any],
        **_info: Any,
    ) -> None:
        if trial.config["number"] == DYING and self.killed is None:
            self.killed = result["pid"]
            os.kill(result["pid"], signal.SIGKILL)

    def on_trial_recover(
        self, iteration: int, trials: list[Trial], trial: Trial, **_info: Any
    ) -> None:
        self.retried.append(trial.config["number"])


@pytest.fixture(scope="module")
def broken(
    ray_here: None, ratings: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Searched, Results, KillOnce]:
    """A search in which trial 1 loses its worker once and trial 2 always raises; one retry each."""
    results, kill = Results(), KillOnce()
    values = {
        "study.n_trials": 5,
        "study.max_concurrent": 2,
        "study.grace_period": N_EPOCHS,
        "resources.max_failures": 1,
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "TrialRunner", FailingRunner)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        folder = tmp_path_factory.mktemp("broken")
        return (
            search(ratings, folder, values, callbacks=[results, kill], tracked=True),
            results,
            kill,
        )


def test_a_killed_worker_costs_its_trial_nothing(
    broken: tuple[Searched, Results, KillOnce],
) -> None:
    searched, results, kill = broken
    assert kill.retried.count(DYING) == 1
    attempts = [
        (epoch, pid == kill.killed) for number, epoch, pid in results.seen if number == DYING
    ]
    assert attempts == [(1, True), (1, False), (2, False), (3, False)]
    dead = searched.trials[DYING]
    assert (dead.state, dead.epochs) == ("complete", N_EPOCHS)
    assert sorted(open_optuna(searched.folder).trials[DYING].intermediate_values) == [1, 2, 3]


def test_a_trial_that_keeps_raising_fails_alone(broken: tuple[Searched, Results, KillOnce]) -> None:
    searched, results, kill = broken
    assert kill.retried.count(FAILING) == 1
    assert [epoch for number, epoch, _ in results.seen if number == FAILING] == [1, 1]
    assert {number: s.state for number, s in searched.trials.items()} == {
        0: "complete", 1: "complete", 2: "failed", 3: "complete", 4: "complete",
    }  # fmt: skip
    failed = searched.trials[FAILING]
    assert (failed.epochs, failed.choosable) == (1, False)
    assert open_optuna(searched.folder).trials[FAILING].state.name == "FAIL"


def test_mlflow_has_every_epoch_once(
    broken: tuple[Searched, Results, KillOnce],
) -> None:
    uri = f"sqlite:///{broken[0].folder.parents[1] / 'mlflow.db'}"
    runs = logged_trials(uri, "recsys")
    assert [run.data.tags["trial"] for run in runs] == ["0", "1", "2", "3", "4"]
    steps = [logged_steps(uri, run, "val_ndcg_at_10") for run in runs]
    assert steps == [[1, 2, 3], [1, 2, 3], [1], [1, 2, 3], [1, 2, 3]]
    assert [run.info.status for run in runs] == [
        "FINISHED",
        "FINISHED",
        "FAILED",
        "FINISHED",
        "FINISHED",
    ]
    assert [run.data.tags["state"] for run in runs] == [
        "complete",
        "complete",
        "failed",
        "complete",
        "complete",
    ]


def test_busy_seconds_are_within_the_wall_seconds(
    broken: tuple[Searched, Results, KillOnce],
) -> None:
    outcome = broken[0].outcome
    assert 0 < outcome.busy_seconds < 2 * outcome.wall_seconds
    assert not outcome.interrupted


def test_one_at_a_time_repeats_itself_in_one_process(
    ray_here: None, ratings: Path, tmp_path: Path
) -> None:
    values = {"study.seed": 3, "study.n_trials": 5}
    results = Results()
    first, second = (
        search(ratings, tmp_path / "a", values, callbacks=[results]),
        search(ratings, tmp_path / "b", values),
    )
    one, other = (
        [(s.number, s.state, s.params, s.value, s.epochs) for s in run.outcome.summaries]
        for run in (first, second)
    )
    assert one == other
    assert {number for number, _, _ in results.seen} == set(range(5)) == set(first.trials)
    assert len(results.pids) == 1


def test_divergence(ray_here: None, ratings: Path, tmp_path: Path) -> None:
    # A step of 1e30 takes the embeddings beyond what float32 can square.
    space = {
        "parameters": {
            "training.learning_rate": {"choices": [1e-3, 1e30]},
            "model.embedding_dim": {"low": 4, "high": 16},
        },
        "warm_start": [{"training.learning_rate": 1e30, "model.embedding_dim": 8}],
    }
    results = Results()
    values = {"model.name": "inner_product", "study.n_trials": 3}
    searched = search(ratings, tmp_path, values, space, [results])
    diverged = {n for n, s in searched.trials.items() if s.params["training.learning_rate"] == 1e30}
    assert 0 in diverged
    assert (
        {n for n, s in searched.trials.items() if s.state == "diverged"}
        == diverged
        == violated(searched.folder)
    )
    assert searched.trials[1].state == "complete"
    best = best_trial(searched.outcome.summaries)
    assert best is not None
    assert best.number not in diverged
    # Stopped at once and not retried.
    assert [number for number, _, _ in results.seen].count(0) == 1
    assert open_optuna(searched.folder).trials[0].state.name == "PRUNED"


def test_files_in_the_folder_of_a_study(broken: tuple[Searched, Results, KillOnce]) -> None:
    searched, _, _ = broken
    StudyFolder(searched.folder).write_results(searched.record, searched.outcome.summaries)
    names = {path.name for path in searched.folder.iterdir()}
    assert names == {
        "config.yaml",
        "space.yaml",
        "optuna.db",
        "trials",
        "best.yaml",
        "trials.parquet",
        "mlflow-outbox.jsonl",
    }
    best = best_trial(searched.outcome.summaries)
    assert best is not None
    assert load_config(searched.folder / "best.yaml") == searched.record.config_of(best.number)
    # The weights of the best three of four completed trials, and the traceback of the failed one.
    order = sorted(
        (s.value or 0.0, -number) for number, s in searched.trials.items() if s.choosable
    )
    expected = {f"{-number}/weights.safetensors" for _, number in order[1:]} | {
        f"{FAILING}/traceback.txt"
    }
    trials = searched.folder / "trials"
    assert {str(path.relative_to(trials)) for path in trials.rglob("*.*")} == expected
    assert len(list(trials.iterdir())) == 4
    text = (trials / str(FAILING) / "traceback.txt").read_text(encoding="utf-8")
    # Of both attempts, without the colours of a terminal.
    assert text.count("RuntimeError: made to fail") == text.count("Failure # ") == 2
    assert "\x1b" not in text
    table = pd.read_parquet(searched.folder / "trials.parquet")
    assert list(table["trial"]) == ["0", "1", "2", "3", "4"]
    assert list(table["state"])[FAILING] == "failed"


def test_names_of_studies(tmp_path: Path) -> None:
    assert StudyFolder.find(tmp_path, "ncf-2024.1_a").path == tmp_path / "studies" / "ncf-2024.1_a"
    for name in (
        "",
        ".",
        "..",
        "../up",
        "a/b",
        "/tmp/x",
        "a\\b",
        ".hidden",
        "-x",
        "a b",
        "a\n",
        "a" * 101,
    ):
        with pytest.raises(ValueError, match=re.escape(f"but got {name!r}. Rename it.")):
            StudyFolder.find(tmp_path, name)


def test_a_study_is_never_started_twice(ray_here: None, ratings: Path, tmp_path: Path) -> None:
    (tmp_path / "studies" / "s").mkdir(parents=True)
    message = (
        r"study: must be a new study, but got s, which exists\. "
        r"Choose another study name, or resume the study\."
    )
    with pytest.raises(InputError, match=message):
        search(ratings, tmp_path, {})
    with pytest.raises(InputError, match="must be a study, but got no record of one"):
        StudyFolder(tmp_path / "studies" / "s").read()


ON_GPUS = """
import sys
from pathlib import Path
import ray
from recsys.search.tuning import run
from recsys.cluster.resources import Slots
from tests.cluster.nodes import wait_until
from tests.small_search import Results, search

class MeetingRunner(run.TrialRunner):
    def step(self):
        meeting = self._folder.parent / "meeting"
        meeting.mkdir(exist_ok=True)
        (meeting / str(self.config["number"])).touch()
        wait_until(lambda: len(list(meeting.iterdir())) >= 4)
        return super().step()

run.TrialRunner = MeetingRunner
ray.init("local", num_cpus=2, num_gpus=2, include_dashboard=False)
results = Results()
values = {"resources.cpu": 0.5, "resources.gpu": 0.5}
values |= {"study.n_trials": 8, "study.max_concurrent": None, "study.grace_period": 3}
searched = search(Path(sys.argv[1]), Path(sys.argv[2]), values, callbacks=[results])
assert Slots(searched.config).count() == 4
assert [s.state for s in searched.outcome.summaries] == ["complete"] * 8, searched.outcome
assert len(results.pids) == 4, results.pids
"""


def test_shares_of_gpus(ratings: Path, tmp_path: Path) -> None:
    # Ray assumes two GPUs; the trials' device is the CPU. 8 trials run 4 at a time, 2 on each GPU.
    # The first four wait for one another: otherwise one worker might run them all.
    root = Path(__file__).parents[3]
    command = [sys.executable, "-c", ON_GPUS, str(ratings), str(tmp_path)]
    done = subprocess.run(
        command, cwd=root, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
