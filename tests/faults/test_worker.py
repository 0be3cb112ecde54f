"""Workers die: killed during an epoch or between trials, out of memory, out of GPU memory."""

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import ray
import torch

from recsys.search.tuning import run, trainable
from recsys.search.tuning.trainable import TrialRunner
from tests.small_search import Results, logged_trials, search

N_EPOCHS = 4
DEATHS = {1: 1, 2: 2}
"""Number of times that a trial's worker is killed, by the trial's number."""


class DyingRunner(TrialRunner):
    """A worker that saves each epoch, and is killed within the third epoch of some trials."""

    def setup(self, *arguments: Any, **named: Any) -> None:
        trainable.CHECKPOINT_SECONDS, trainable.CHECKPOINT_SHARE = 0.0, 1e9
        super().setup(*arguments, **named)

    def step(self) -> dict[str, Any]:
        marks = self._folder.parent / "deaths"
        marks.mkdir(exist_ok=True)
        number = self.config["number"]
        n_deaths = len(list(marks.glob(f"{number}-*")))
        # The first step of a retry reports the second epoch again, which was saved.
        if n_deaths < DEATHS.get(number, 0) and self.iteration == (2 if n_deaths == 0 else 1):
            (marks / f"{number}-{n_deaths}").touch()
            signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
            signal.setitimer(signal.ITIMER_REAL, 0.002)  # an epoch takes ten times as long
        return super().step()


@pytest.mark.usefixtures("ray_here")
def test_a_worker_that_is_killed_within_an_epoch(
    ratings: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(run, "TrialRunner", DyingRunner)
    values = {
        "study.n_trials": 4,
        "training.max_epochs": N_EPOCHS,
        "study.grace_period": N_EPOCHS,
        "resources.max_failures": 1,
    }
    results = Results()
    searched = search(
        ratings, tmp_path, {**values, "training.batch_size": 4}, callbacks=[results], tracked=True
    )
    assert sorted(path.name for path in (searched.folder / "deaths").iterdir()) == [
        "1-0",
        "2-0",
        "2-1",
    ]
    # Killed once: the next worker resumes after the second epoch, which it reports again.
    assert epochs_by_worker(results, 1) == [[1, 2], [2, 3, 4]]
    # Killed once more than it is retried.
    assert epochs_by_worker(results, 2) == [[1, 2], [2]]
    states = {
        number: (summary.state, summary.epochs) for number, summary in searched.trials.items()
    }
    assert states == {0: ("complete", 4), 1: ("complete", 4), 2: ("failed", 2), 3: ("complete", 4)}
    runs = logged_trials(f"sqlite:///{tmp_path / 'mlflow.db'}", "recsys")
    assert [run.info.status for run in runs] == ["FINISHED", "FINISHED", "FAILED", "FINISHED"]
    text = (searched.folder / "trials" / "2" / "traceback.txt").read_text(encoding="utf-8")
    assert text.count("The actor died unexpectedly") == 2


def epochs_by_worker(results: Results, number: int) -> list[list[int]]:
    seen: dict[int, list[int]] = {}
    for trial_number, epoch, pid in results.seen:
        if trial_number == number:
            seen.setdefault(pid, []).append(epoch)
    return list(seen.values())


class DyingBetweenRunner(TrialRunner):
    """A worker that is killed once, while it starts its second trial."""

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        mark = self._folder.parent / "killed"
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().reset_config(new_config)


@pytest.mark.usefixtures("ray_here")
def test_a_worker_that_is_killed_between_two_trials(
    ratings: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(run, "TrialRunner", DyingBetweenRunner)
    values = {"study.n_trials": 4, "study.grace_period": 3}
    searched = search(ratings, tmp_path, values, tracked=True)
    assert (searched.folder / "killed").exists()
    assert {number: summary.state for number, summary in searched.trials.items()} == dict.fromkeys(
        range(4), "complete"
    )
    runs = logged_trials(f"sqlite:///{tmp_path / 'mlflow.db'}", "recsys")
    assert [(run.data.tags["trial"], run.info.status) for run in runs] == [
        (str(number), "FINISHED") for number in range(4)
    ]


class LimitedRunner(TrialRunner):
    """A worker that may allocate 1 GB more than it has at its start."""

    def setup(self, *arguments: Any, **named: Any) -> None:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 10**9,) * 2)
        super().setup(*arguments, **named)


@pytest.mark.usefixtures("ray_here")
def test_a_trial_without_enough_memory_fails_alone(
    ratings: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(run, "TrialRunner", LimitedRunner)
    # For 60 users and 80 items: 2.2 GB, and as much for each moment.
    space = {
        "parameters": {
            "model.embedding_dim": {"choices": [8, 4_000_000]},
            "training.learning_rate": {"low": 1e-3, "high": 0.1},
        },
        "warm_start": [{"model.embedding_dim": 4_000_000, "training.learning_rate": 0.01}],
    }
    values = {
        "model.name": "inner_product",
        "model.embedding_dim": 8,
        "study.sampler": "qmc",
        "resources.max_failures": 1,
    }
    searched = search(ratings, tmp_path, {**values, "study.n_trials": 3}, space)
    by_size: dict[int, set[str]] = {8: set(), 4_000_000: set()}
    for summary in searched.outcome.summaries:
        by_size[summary.params["model.embedding_dim"]].add(summary.state)
    assert by_size[4_000_000] == {"failed"}
    assert by_size[8] <= {"complete", "pruned"}
    text = (searched.folder / "trials" / "1" / "traceback.txt").read_text(encoding="utf-8")
    assert text.count("Failure # ") == 2
    assert "can't allocate memory" in text


class FullGpuRunner(TrialRunner):
    """A worker whose second trial needs a whole GPU, and otherwise raises as torch does."""

    def step(self) -> dict[str, Any]:
        share = ray.get_runtime_context().get_assigned_resources()["GPU"]  # type: ignore[no-untyped-call]
        with (self._folder.parent / "shares").open("a") as shares:
            shares.write(f"{self.config['number']} {self.iteration} {share}\n")
        if self.config["number"] == 1 and self.iteration == 1 and share < 1:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return super().step()


ON_A_GPU = """
import sys
from pathlib import Path
import ray
from recsys.search.tuning import run
from tests.faults.test_worker import FullGpuRunner
from tests.small_search import search

ray.init("local", num_cpus=2, num_gpus=1, include_dashboard=False)
run.TrialRunner = FullGpuRunner
values = {"resources.cpu": 0.5, "resources.gpu": 0.25}
values |= {"study.n_trials": 4, "training.max_epochs": 2, "study.grace_period": 2}
searched = search(Path(sys.argv[1]), Path(sys.argv[2]), values)
assert [s.state for s in searched.outcome.summaries] == ["complete"] * 4, searched.outcome
"""


def test_a_retry_after_a_full_gpu_has_twice_the_share(ratings: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", ON_A_GPU, str(ratings), str(tmp_path)]
    done = subprocess.run(
        command,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    shares: dict[str, list[float]] = {}
    for line in (tmp_path / "studies" / "s" / "shares").read_text().splitlines():
        number, iteration, share = line.split()
        if iteration == "1":
            shares.setdefault(number, []).append(float(share))
    assert shares == {"0": [0.25], "1": [0.25, 0.5, 1.0], "2": [0.25], "3": [0.25]}
