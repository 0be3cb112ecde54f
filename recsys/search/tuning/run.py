"""The trials of a study under Ray Tune, from the first to the last.

Stands between a run of the command and the parts of the search: searcher, scheduler, trials and progress.
"""

import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from ray import tune
from ray.tune import Callback, Stopper
from ray.tune.error import TuneError
from ray.tune.experiment import Trial

from recsys.cluster.resources import Slots, placement
from recsys.config.schema import Config
from recsys.search.record.record import StudyRecord
from recsys.search.record.summaries import TrialSummary
from recsys.search.tuning.progress import SearchProgress
from recsys.search.tuning.pruning import make_pruner
from recsys.search.tuning.recorder import Recorder
from recsys.search.tuning.searcher import StudySearcher
from recsys.search.tuning.trainable import TrialRunner
from recsys.search.tuning.trial_folders import Later, TrialFolders, at_once

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


def search(
    folder: Path,
    record: StudyRecord,
    config: Config,
    data: Any,
    callbacks: list[Callback],
    *,
    slots: Slots,
    gpu_device: str = "cuda",
    after_upload: Later = at_once,
) -> Outcome:
    """Run the trials of a study until they are done, the time budget is spent or the user interrupts.

    Args:
        folder: the study's folder.
        record: where everything is written as it happens.
        config: the base config.
        data: reference to the `Interactions` in Ray's object store.
        callbacks: further listeners, such as MLflow's.
        slots: how many trials may run at a time.
        gpu_device: the torch device of trials that have a GPU.
        after_upload: does what must wait until the record lies where it is gone on from.
    """
    trial_folder = (folder / "trials").resolve()
    folders = TrialFolders(trial_folder, record, config.study.keep_checkpoints, after_upload)
    limit = config.study.trial_limit
    if limit is not None and record.n_finished >= limit:
        return Outcome(record.summaries(), wall_seconds=0.0, busy_seconds=0.0, interrupted=False)
    progress = SearchProgress(record, config)
    stopper = _Stopper(config.study.time_budget)
    listeners = [*callbacks, folders, progress]
    pruner = make_pruner(record, config)
    parameters = {
        "data": [data],
        "folder": str(trial_folder),
        "rungs": set(pruner.steps),
        "gpu_device": gpu_device,
    }
    trainable = tune.with_resources(
        tune.with_parameters(TrialRunner, **parameters), placement(config, config.resources.gpu)
    )
    # tune.run and not Tuner: a Tuner pickles itself, searcher and callbacks included, and nothing here is to be unpickled.
    with (
        tempfile.TemporaryDirectory(
            prefix="recsys-tune-", ignore_cleanup_errors=True
        ) as tune_folder,
        _interrupts(stopper),
    ):
        try:
            tune.run(
                trainable,
                name=folder.name,
                search_alg=StudySearcher(record, limit, slots.count),
                scheduler=Recorder(record, pruner, config),
                num_samples=_MANY_TRIALS,  # the searcher knows when to end
                max_failures=config.resources.max_failures,
                reuse_actors=True,
                stop=stopper,
                callbacks=listeners,
                storage_path=tune_folder,
                trial_name_creator=_trial_name,
                trial_dirname_creator=_trial_name,
                raise_on_failed_trial=False,
                verbose=0,
            )
        except KeyboardInterrupt:
            pass  # from the stopper: what was reported is written, and the workers end with this process
        except TuneError as error:
            # What was raised where Tune tells of a result or a failure: Tune wraps it into the text of a traceback.
            raise error.__context__ or error from None
        finally:
            progress.close()
    wall = (progress.ended or 0.0) - (progress.started or progress.ended or 0.0)
    return Outcome(record.summaries(), wall, progress.busy_seconds, stopper.interrupted)


def _trial_name(trial: Trial) -> str:
    return f"trial-{trial.config['number']}"


class _Stopper(Stopper):
    """Ends the whole search once the time budget is spent or the user interrupts."""

    def __init__(self, time_budget: float | None) -> None:
        self.interrupted = False
        self._deadline = None if time_budget is None else time.monotonic() + time_budget

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        if self.interrupted:
            # Told to stop, Tune waits ten seconds for a worker in the middle of an epoch. Here it is between two results.
            raise KeyboardInterrupt
        return self._deadline is not None and time.monotonic() >= self._deadline


@contextmanager
def _interrupts(stopper: _Stopper) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the search in order: what was reported stays, and the runs are closed."""

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        stopper.interrupted = True

    before = {
        number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
