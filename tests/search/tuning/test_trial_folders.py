"""Disk space of a study's trials, during the search and after it."""

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from ray.tune.experiment import Trial

from recsys.config.schema import Config, replace_values
from recsys.search.record.origin import StudyOrigin
from recsys.search.record.study_folder import StudyFolder, create_optuna_study
from recsys.search.record.study_record import StudyRecord
from recsys.search.space.space_file import parse_space
from recsys.search.tuning import run, trainable
from recsys.search.tuning.messages import Diverged, Message, Report, as_result
from recsys.search.tuning.pruning import make_pruner
from recsys.search.tuning.recorder import Recorder
from recsys.search.tuning.searcher import StudySearcher
from recsys.search.tuning.trainable import CHECKPOINT, WEIGHTS, TrialRunner
from recsys.search.tuning.trial_folders import TrialFolders
from recsys.training.checkpoint import TrainingState, start_training
from tests.small_search import search

MB = 1_000_000
N_USERS, N_ITEMS, DIM = 20_000, 5_000, 100  # and a bias each: 10.1 MB
CONFIG = replace_values(
    Config(),
    {
        "model.name": "inner_product",
        "model.embedding_dim": DIM,
        "training.max_epochs": 2,
        "study.n_trials": 200,
    },
)
SPACE = parse_space({"parameters": {"training.learning_rate": {"low": 1e-4, "high": 1e-1}}}, "")


def used(folder: Path) -> int:
    """Return the bytes of the files below a folder; files that vanish meanwhile count as 0."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size
        except FileNotFoundError:
            continue
    return total


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


class Disk:
    """A study's record, recorder and files, written as in a search but without training."""

    def __init__(self, folder: Path, n_kept: int = 3, state: TrainingState | None = None) -> None:
        self.folder = folder
        self.trials = folder / "trials"
        is_new = not (folder / "optuna.db").exists()
        if is_new:
            study = create_optuna_study(folder, CONFIG, StudyOrigin())
            self.record = StudyRecord(study, CONFIG, SPACE)
        else:
            self.record = StudyFolder(folder).resume(CONFIG, SPACE)
        pruner = make_pruner(self.record, CONFIG)
        self.searcher = StudySearcher(self.record, pruner, None, lambda: 10, None)
        self.scheduler = Recorder(self.record, pruner, CONFIG)
        self.folders = TrialFolders(self.trials, self.record, n_kept)
        self.state = state or start_training(
            replace_values(CONFIG, {"model.embedding_dim": 4}), 3, 3, 0, "cpu"
        )

    def begin(self, *, saves: bool = True) -> int:
        """Start a trial; it has a checkpoint if it `saves`, as after half a minute."""
        number = int(
            cast(Any, self.searcher.suggest(f"tune-{len(self.record.summaries())}"))["number"]
        )
        if saves:
            self.state.save(self.trials / str(number) / CHECKPOINT)
        return number

    def report(self, number: int, step: int, value: float) -> None:
        """Do as a worker and the driver do after an epoch."""
        is_last = step == CONFIG.training.max_epochs
        self.state.best_value = None
        self.state.note_value(value)
        self.state.save_best(self.trials / str(number) / WEIGHTS, CONFIG)
        self.send(number, Report(step, step, True, {"val_ndcg_at_10": value}, is_last, 0.0))

    def send(self, number: int, message: Message) -> None:
        result = {**as_result(message), "node_ip": "10.0.0.1"}
        decision = self.scheduler.on_trial_result(cast(Any, None), self._trial(number), result)
        self.folders.on_trial_result(
            1, [], self._trial(number), {**result, "done": decision == "STOP"}
        )

    def fail(self, number: int, error: Path) -> None:
        self.record.finish(number, "failed")
        self.folders.on_trial_error(1, [], self._trial(number, error))

    def _trial(self, number: int, error: Path | None = None) -> Trial:
        found = Trial("none", config={"number": number}, stub=True)
        if error:
            cast(Any, found.run_metadata).error_filename = error.name
            found.storage = cast(Any, SimpleNamespace(trial_driver_staging_path=str(error.parent)))
        return found


def test_200_trials_of_10_mb(tmp_path: Path) -> None:
    disk = Disk(tmp_path, state=start_training(CONFIG, N_USERS, N_ITEMS, 0, "cpu"))
    draw, most = random.Random(0), 0
    for pair_number in range(100):
        pair = [disk.begin(saves=pair_number % 10 == 9) for _ in range(2)]
        for step in (1, 2):
            for number in filter(disk.record.is_running, pair):
                disk.report(number, step, draw.random())
                most = max(most, used(tmp_path))
    states = [summary.state for summary in disk.record.summaries()]
    assert len(states) == 200
    assert states.count("pruned") > 50
    assert states.count("complete") > 20
    # Each of two running trials may write a checkpoint beside its last one: weights, best weights
    # and two moments.
    assert most + 2 * 4 * 10.1 * MB < 250 * MB
    best = sorted(disk.record.summaries(), key=lambda summary: summary.value or 0.0)[-3:]
    assert names(disk.trials) == {f"{summary.number}/{WEIGHTS}" for summary in best}
    assert 30 * MB < used(tmp_path) < 60 * MB


def test_the_best_ended_trials_keep_weights_and_running_ones_all_files(tmp_path: Path) -> None:
    disk = Disk(tmp_path, n_kept=2)
    numbers = [disk.begin() for _ in range(5)]
    for number, value in zip(numbers, (0.8, 0.9, 0.5, 0.4, 0.2), strict=True):
        disk.report(number, 1, value)
    # All but the first two were pruned; the values of those two do not count before they end.
    first, second = ({f"{number}/{CHECKPOINT}", f"{number}/{WEIGHTS}"} for number in numbers[:2])
    kept = {f"{numbers[2]}/{WEIGHTS}", f"{numbers[3]}/{WEIGHTS}"}
    assert names(disk.trials) == first | second | kept
    disk.send(numbers[0], Diverged("train_loss"))
    assert names(disk.trials) == second | kept
    disk.send(numbers[1], Diverged("train_loss"))
    assert {path.name for path in disk.trials.iterdir()} == {str(numbers[2]), str(numbers[3])}


def test_a_failed_trial_keeps_its_traceback_alone(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    number = disk.begin()
    disk.report(number, 1, 0.9)
    error = tmp_path / "error.txt"
    error.write_text("\x1b[36mTraceback\x1b[39m: made to fail\n")
    disk.fail(number, error)
    assert names(disk.trials) == {f"{number}/traceback.txt"}
    assert (disk.trials / str(number) / "traceback.txt").read_text() == "Traceback: made to fail\n"


def test_the_next_process_deletes_the_files_of_a_killed_one(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    ended, running = disk.begin(), disk.begin()
    half = f".{CHECKPOINT}.1-abc.tmp"
    for number in (ended, running):
        disk.report(number, 1, 0.5)
        (disk.trials / str(number) / half).write_bytes(b"half")
    disk.record.finish(ended, "complete")  # and the process is killed before it deletes
    left = {
        f"{number}/{name}" for number in (ended, running) for name in (CHECKPOINT, WEIGHTS, half)
    }
    assert names(disk.trials) == left
    Disk(tmp_path)
    assert names(disk.trials) == {
        f"{ended}/{WEIGHTS}",
        f"{running}/{WEIGHTS}",
        f"{running}/{CHECKPOINT}",
    }


class SavingRunner(TrialRunner):
    """A worker that saves a checkpoint each epoch."""

    def setup(self, *arguments: Any, **named: Any) -> None:
        trainable.CHECKPOINT_SECONDS, trainable.CHECKPOINT_SHARE = 0.0, 1e9
        super().setup(*arguments, **named)


@contextmanager
def watched(folder: Path) -> Iterator[list[int]]:
    """Measure repeatedly the space that is used below a folder."""
    seen, stopped = [0], threading.Event()

    def look() -> None:
        while not stopped.wait(0.01):
            seen.append(used(folder))

    watching = threading.Thread(target=look)
    watching.start()
    yield seen
    stopped.set()
    watching.join()


def test_a_search(
    ray_here: None, ratings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "TrialRunner", SavingRunner)
    values = {
        "model.name": "inner_product",
        "model.embedding_dim": 1500,
        "study.n_trials": 9,
        "study.keep_checkpoints": 8,
    }
    space = {"parameters": {"training.learning_rate": {"low": 1e-4, "high": 3e-1, "log": True}}}
    with watched(tmp_path) as seen:
        searched = search(ratings, tmp_path, values, space)
    ended = sorted(searched.outcome.summaries, key=lambda summary: summary.value or 0.0)
    assert "pruned" in [summary.state for summary in ended[-8:]]
    assert names(searched.folder / "trials") == {
        f"{summary.number}/{WEIGHTS}" for summary in ended[-8:]
    }
    # The weights of eight trials, and the running trial's weights, checkpoint and next checkpoint.
    assert max(seen) < (8 + 2 * 4 + 1) * 4 * (60 + 80) * 1501 + MB
