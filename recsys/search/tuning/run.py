"""The trials of a study under Ray Tune, from the first to the last.

Builds the searcher, the recorder and the callbacks of one run of the command, and runs Tune.
"""

import math
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
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
from recsys.data.manifest import Manifest
from recsys.search.costs.predict import Costs
from recsys.search.record.study_record import StudyRecord
from recsys.search.record.summaries import TrialSummary
from recsys.search.sampling.samplers import make_sampler
from recsys.search.tuning.progress import SearchProgress
from recsys.search.tuning.pruning import Pruner, make_pruner
from recsys.search.tuning.recorder import Recorder
from recsys.search.tuning.schedule import Schedule
from recsys.search.tuning.searcher import StudySearcher
from recsys.search.tuning.trainable import TrialRunner
from recsys.search.tuning.trial_folders import Defer, TrialFolders, call_now

_MANY_TRIALS = 10**6


@dataclass(frozen=True)
class Outcome:
    """Result of one run of a study.

    Attributes:
        summaries: all trials of the study.
        wall_seconds: from the first batch to the last result.
        busy_seconds: time that trials trained and ranked, summed over the trials.
        interrupted: the user stopped the search.
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
    callbacks: Sequence[Callback],
    *,
    slots: Slots,
    sizes: Manifest,
    gpu_device: str = "cuda",
    after_upload: Defer = call_now,
) -> Outcome:
    """Run trials until the study is complete, its time budget is spent or the user interrupts.

    The callbacks do not depend on their order: the recorder stores a result before Tune calls any
    of them, and each reads the result and the record alone.

    Args:
        folder: the study's folder.
        record: the study's record.
        config: the base config.
        data: reference to the `Interactions` in Ray's object store.
        callbacks: further callbacks of Tune, such as `StudyCallback`.
        slots: how many trials may run at a time.
        sizes: the sizes of the data.
        gpu_device: the torch device of trials that have a GPU.
        after_upload: calls an action once the record, as it is now, is uploaded.
    """
    trials = (folder / "trials").resolve()
    folders = TrialFolders(trials, record, config.study.keep_checkpoints, after_upload)
    costs, limit = Costs(record, sizes), config.study.trial_limit
    record.use(make_sampler(config, record, costs))
    progress = SearchProgress(record, config, costs)
    stopper = _Stopper(config.study.time_budget)
    if limit is None or record.n_finished < limit:
        pruner = make_pruner(record, config)
        schedule = _schedule(
            stopper, costs, config, pruner, slots=slots, n_segments=record.n_segments
        )
        try:
            _run_tune(
                folder.name,
                _trainable(config, data, trials, gpu_device),
                StudySearcher(record, pruner, limit, slots.count, schedule),
                Recorder(record, pruner, config),
                [*callbacks, folders, progress],
                stopper=stopper,
                max_failures=config.resources.max_failures,
            )
        finally:
            progress.close()
    wall = (progress.ended or 0.0) - (progress.started or progress.ended or 0.0)
    return Outcome(record.summaries(), wall, progress.busy_seconds, stopper.interrupted)


def _schedule(
    stopper: "_Stopper",
    costs: Costs,
    config: Config,
    pruner: Pruner,
    *,
    slots: Slots,
    n_segments: int,
) -> Schedule | None:
    """Return the schedule of a search that begins now, None without a time budget."""
    if config.study.time_budget is None:
        return None
    return Schedule(
        config.study.time_budget,
        stopper.seconds_left,
        costs,
        n_slots=slots.most,
        n_trials=config.study.n_trials,
        mean_share=pruner.mean_share,
        n_segments=n_segments,
    )


def _trainable(config: Config, data: Any, trials: Path, gpu_device: str) -> Any:
    """Return `TrialRunner` with the parameters of its `setup` and the resources of a trial."""
    runner = tune.with_parameters(
        TrialRunner,
        data=[data],
        folder=str(trials),
        gpu_device=gpu_device,
    )
    return tune.with_resources(runner, placement(config, config.resources.gpu))


def _run_tune(
    name: str,
    trainable: Any,
    searcher: StudySearcher,
    recorder: Recorder,
    callbacks: list[Callback],
    *,
    stopper: "_Stopper",
    max_failures: int,
) -> None:
    """Run Tune until the searcher has no more trials or the stopper stops it."""
    with (
        tempfile.TemporaryDirectory(prefix="recsys-tune-", ignore_cleanup_errors=True) as storage,
        _interrupts(stopper),
    ):
        try:
            # Not a `Tuner`, which pickles its searcher and callbacks: recsys unpickles nothing.
            tune.run(
                trainable,
                name=name,
                search_alg=searcher,
                scheduler=recorder,
                num_samples=_MANY_TRIALS,  # the searcher ends the search
                max_failures=max_failures,
                reuse_actors=True,
                stop=stopper,
                callbacks=callbacks,
                storage_path=storage,
                trial_name_creator=_trial_name,
                trial_dirname_creator=_trial_name,
                raise_on_failed_trial=False,
                verbose=0,
            )
        except KeyboardInterrupt:
            pass  # from the stopper: all reports are stored, and the workers end with the driver
        except TuneError as error:
            # An error of the recorder or a callback, which Tune turns into the text of a traceback.
            raise error.__context__ or error from None


def _trial_name(trial: Trial) -> str:
    return f"trial-{trial.config['number']}"


class _Stopper(Stopper):
    """Stopper of the whole search once its time budget is spent or the user interrupts."""

    def __init__(self, time_budget: float | None) -> None:
        self.interrupted = False
        self._deadline = math.inf if time_budget is None else time.monotonic() + time_budget

    def __getstate__(self) -> dict[str, Any]:
        """Return nothing: Tune stores its stopper, and recsys reads back nothing of Tune's."""
        return {}

    def seconds_left(self) -> float:
        """Return the rest of the time budget, infinity without one."""
        return self._deadline - time.monotonic()

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        if self.interrupted:
            # If it returned True, Tune would wait ten seconds for each worker within an epoch.
            # Tune calls this between two results, so that no report is lost.
            raise KeyboardInterrupt
        return self.seconds_left() <= 0


@contextmanager
def _interrupts(stopper: _Stopper) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the search through the stopper, not amid a callback."""

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
