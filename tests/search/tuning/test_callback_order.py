"""Tune's callbacks of a search do the same in every order: each reads the result and the record."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from ray.tune import Callback
from ray.tune.experiment import Trial

from recsys.config.schema import replace_values
from recsys.console.verbosity import NORMAL, VERBOSE, set_verbosity
from recsys.search.tuning.messages import Diverged, Message, Report, as_result
from recsys.search.tuning.mlflow_callback import StudyCallback
from recsys.search.tuning.progress import SearchProgress
from recsys.search.tuning.trainable import CHECKPOINT, WEIGHTS
from recsys.tracking.outbox_file import Operation, read_outbox
from recsys.tracking.study_runs import OUTBOX, open_study_runs
from tests.search.tuning.test_progress import SixSeconds
from tests.search.tuning.test_trial_folders import CONFIG, Disk, names

NO_SERVER = replace_values(CONFIG, {"tracking.uri": "http://127.0.0.1:9"})


@dataclass(frozen=True)
class Seen:
    """Everything that the callbacks of a search leave behind."""

    files: set[str]
    operations: list[Operation]
    lines: list[str]
    busy_seconds: float


def report(disk: Disk, number: int, step: int, value: float) -> Report:
    """Write the weights of a step as a worker does; its report."""
    disk.state.save(disk.trials / str(number) / CHECKPOINT)
    disk.state.save(disk.trials / str(number) / WEIGHTS)
    metrics = {"val_ndcg_at_10": value, "train_seconds": 2.0, "rank_seconds": 1.0}
    return Report(step, step, True, metrics, is_last=step == 2, started=5.0)


def run_search(
    folder: Path, order: Sequence[int], capsys: pytest.CaptureFixture[str], error: Path
) -> Seen:
    """Run trials that complete, are pruned, diverge and fail, with the callbacks in an order."""
    folder.mkdir(parents=True)
    disk = Disk(folder, n_kept=1)
    runs = open_study_runs(NO_SERVER, folder, folder, None, lambda _number, _run_id: None)
    runs.start({}, {})
    progress = SearchProgress(disk.record, CONFIG, SixSeconds())
    listed: list[Callback] = [StudyCallback(runs, disk.record), disk.folders, progress]
    callbacks = [listed[position] for position in order]
    trials = [tune_trial(disk, disk.begin(saves=False), error) for _ in range(4)]
    for trial in trials:
        for callback in callbacks:
            callback.on_trial_start(1, trials, trial)

    def send(trial: Trial, message: Message) -> None:
        result: dict[str, Any] = {**as_result(message), "node_ip": "10.0.0.1"}
        decision = disk.scheduler.on_trial_result(cast(Any, None), trial, result)
        result["done"] = decision == "STOP"
        for callback in callbacks:
            callback.on_trial_result(1, trials, trial, result)

    complete, pruned, diverged, failed = trials
    send(complete, report(disk, 0, 1, 0.5))
    send(pruned, report(disk, 1, 1, 0.4))
    send(complete, report(disk, 0, 2, 0.3))
    send(diverged, Diverged("train_loss"))
    disk.searcher.on_trial_complete("tune-3", error=True)
    for callback in callbacks:
        callback.on_trial_error(1, trials, failed)
    states = [disk.record.state_of(number) for number in range(4)]
    assert states == ["complete", "pruned", "diverged", "failed"]
    kept = [entry.operation for entry in read_outbox(folder / OUTBOX)]
    runs.close(0.0)
    changing = ("time", "unique")  # of the clock, and the study's random id
    operations = [{k: v for k, v in each.items() if k not in changing} for each in kept]
    return Seen(
        names(disk.trials), operations, capsys.readouterr().err.splitlines(), progress.busy_seconds
    )


def tune_trial(disk: Disk, number: int, error: Path) -> Trial:
    """A trial as Tune has it, with the file that its error is in if it fails."""
    trial = disk._trial(number, error)
    trial.config |= {"seed": 7, "config": CONFIG.model_dump_json()}
    return trial


def test_callbacks_do_the_same_in_every_order(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(monotonic=lambda: 100.0, time=lambda: 100.0)
    monkeypatch.setattr("recsys.search.tuning.progress.time", clock)
    error = tmp_path / "error.txt"
    error.write_text("Failure # 1\nTraceback: made to fail\n")
    set_verbosity(VERBOSE)
    try:
        seen = [
            run_search(tmp_path / "".join(map(str, order)) / "s", order, capsys, error)
            for order in itertools.permutations(range(3))
        ]
    finally:
        set_verbosity(NORMAL)
    assert seen == [seen[0]] * 6
    assert seen[0].files == {f"0/{WEIGHTS}", "3/traceback.txt"}
    assert [(o["run"], o["status"]) for o in seen[0].operations if o["do"] == "end"] == [
        (1, "FINISHED"),
        (0, "FINISHED"),
        (2, "FAILED"),
        (3, "FAILED"),
    ]
    assert [line.split(",")[0] for line in seen[0].lines if " after " in line] == [
        "trial 1: pruned after 1 epoch",
        "trial 0: complete after 2 epochs",
        "trial 2: diverged after 0 epochs",
        "trial 3: failed after 0 epochs",
    ]
    assert seen[0].busy_seconds == 9.0
