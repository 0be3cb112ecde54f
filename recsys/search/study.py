"""A study from start to end: its folder, its trials under Ray Tune, its outcome.

Stands between the command and the record. What a study leaves in its folder: `config.yaml` and `space.yaml` as started,
`optuna.db` (the record), `trials/` (checkpoints of the best), `best.yaml` and `trials.parquet`.
"""

import os
import re
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

# Tune logs each result to files and a console of its own unless told otherwise; the record, MLflow and the progress show it all.
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", str(10**9))
os.environ.setdefault("TUNE_FORCE_TRIAL_CLEANUP_S", "5")

import pandas as pd
from ray import tune
from ray.tune import Callback, Stopper
from ray.tune.experiment import Trial

from recsys.config import Config
from recsys.config_files import config_yaml, dump_yaml, parse_config, read_yaml
from recsys.search.progress import SearchProgress
from recsys.search.record import StudyRecord, TrialSummary, best_trial, create_study, load_study
from recsys.search.resources import slots
from recsys.search.searcher import AshaScheduler, StudySearcher
from recsys.search.space import SearchSpace
from recsys.search.trial import TrialRunner
from recsys.storage import write_atomically

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_MANY_TRIALS = 10**6


@dataclass(frozen=True)
class Outcome:
    """What a search came to.

    `wall_seconds`: from the first batch to the last trial's end. `busy_seconds`: training and ranking, summed over the trials.
    """

    summaries: list[TrialSummary]
    wall_seconds: float
    busy_seconds: float
    interrupted: bool


def study_folder(folder: Path, name: str) -> Path:
    """Where a study of this name lies.

    Raises:
        ValueError: if the name could leave the folder or is no plain name.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"study name: must be at most 100 letters, digits, dots, dashes and underscores, but got {name!r}. Rename it."
        )
    return folder / "studies" / name


def require_new(folder: Path) -> None:
    """Check that there is no study in this folder yet.

    Raises:
        FileExistsError: if there is.
    """
    if folder.exists():
        raise FileExistsError(f"--name: must be a new study, but got {folder.name}, which exists. Choose another name.")


def create(folder: Path, config: Config, space: SearchSpace) -> StudyRecord:
    """Make the folder of a new study with its config, its space and an empty record.

    Raises:
        FileExistsError: if the study exists.
    """
    require_new(folder)
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(config_yaml(config), encoding="utf-8")
    (folder / "space.yaml").write_text(dump_yaml(space.tree()), encoding="utf-8")
    record = StudyRecord(create_study(folder, config), config, space)
    record.enqueue_first_points()
    return record


def read(folder: Path) -> tuple[StudyRecord, Config]:
    """The record of a study for reading, and the config it was started with.

    Raises:
        FileNotFoundError: if the folder holds no study.
    """
    study = load_study(folder)
    file = folder / "config.yaml"
    config = parse_config(read_yaml(file), str(file))
    return StudyRecord(study, config, SearchSpace({}, ())), config


def search(
    folder: Path, record: StudyRecord, config: Config, data: Any, callbacks: list[Callback], *, gpu_device: str = "cuda"
) -> Outcome:
    """Run the trials of a study until they are done, the time budget is spent or the user interrupts.

    Args:
        folder: the study's folder.
        record: where everything is written as it happens.
        config: the base config.
        data: reference to the `Interactions` in Ray's object store.
        callbacks: further listeners, such as MLflow's.
        gpu_device: the torch device of trials that have a GPU.
    """
    progress = SearchProgress(record, config)
    stopper = _Stopper(config.study.time_budget)
    trainable = tune.with_resources(
        tune.with_parameters(TrialRunner, data=[data], folder=str((folder / "trials").resolve()), gpu_device=gpu_device),
        {"cpu": config.resources.cpu, "gpu": config.resources.gpu},
    )
    only_time = config.study.time_budget is not None and "n_trials" not in config.study.model_fields_set
    # tune.run and not Tuner: a Tuner pickles itself, searcher and callbacks included, and nothing here is to be unpickled.
    with tempfile.TemporaryDirectory(prefix="recsys-tune-", ignore_cleanup_errors=True) as tune_folder, _interrupts(stopper):
        try:
            tune.run(
                trainable,
                name=folder.name,
                search_alg=StudySearcher(record),
                scheduler=AshaScheduler(record, config),
                num_samples=_MANY_TRIALS if only_time else config.study.n_trials,
                max_concurrent_trials=slots(config),
                max_failures=config.resources.max_failures,
                reuse_actors=True,
                stop=stopper,
                callbacks=[*callbacks, progress],
                storage_path=tune_folder,
                trial_name_creator=_trial_name,
                trial_dirname_creator=_trial_name,
                raise_on_failed_trial=False,
                verbose=0,
            )
        finally:
            progress.close()
    wall = (progress.ended or 0.0) - (progress.started or progress.ended or 0.0)
    return Outcome(record.summaries(), wall, progress.busy_seconds, stopper.interrupted)


def write_results(folder: Path, record: StudyRecord, config: Config, summaries: list[TrialSummary]) -> None:
    """Write `trials.parquet` and, once a trial has a value, `best.yaml`; keep the checkpoints of the best trials alone."""
    rows = [leaderboard_row(summary) for summary in summaries]
    with write_atomically(folder / "trials.parquet") as file:
        pd.DataFrame(rows).to_parquet(file)
    best = best_trial(summaries)
    if best is not None:
        with write_atomically(folder / "best.yaml") as file:
            file.write_text(config_yaml(record.config_of(best.number)), encoding="utf-8")
    choosable = sorted((s for s in summaries if s.choosable), key=lambda s: -(s.value or 0.0))
    kept = {s.number for s in choosable[: config.study.keep_checkpoints]} | {
        s.number for s in summaries if s.state == "unfinished"
    }
    for checkpoint in (folder / "trials").glob("*.safetensors"):
        if int(checkpoint.stem) not in kept:
            checkpoint.unlink()


def leaderboard_row(summary: TrialSummary) -> dict[str, Any]:
    """A trial as a row of the leaderboard: its id and state, what it reached and where, its parameters."""
    return {
        "trial": str(summary.number),
        "state": summary.state,
        "value": summary.value,
        "epoch": summary.epoch,
        "epochs": summary.epochs,
        **summary.metrics,
        **summary.params,
        "mlflow_run_id": summary.run_id,
    }


def _trial_name(trial: Trial) -> str:
    return f"trial-{trial.config['number']}"


class _Stopper(Stopper):
    """Ends the whole search once the time budget is spent or the user interrupts."""

    def __init__(self, time_budget: float | None) -> None:
        self.interrupted = False
        self._deadline = None if time_budget is None else time.monotonic() + time_budget

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:  # noqa: ARG002 (single trials end by themselves)
        return False

    def stop_all(self) -> bool:
        return self.interrupted or (self._deadline is not None and time.monotonic() >= self._deadline)


@contextmanager
def _interrupts(stopper: _Stopper) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the search in order: what was reported stays, and the runs are closed."""

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        stopper.interrupted = True

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
