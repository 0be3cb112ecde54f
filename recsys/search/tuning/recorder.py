"""The recorder: Ray Tune's scheduler, which writes each report into the record and ends the trials that a pruner stops.

The decision itself is the pruner's (`pruning`); writing, ending, retrying and giving back are done here.
"""

import errno
from collections import Counter
from typing import Any, cast

from ray.tune import PlacementGroupFactory
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from recsys.cluster.resources import placement
from recsys.config.schema import Config
from recsys.search.record.record import StudyRecord
from recsys.search.tuning.pruning import Pruner
from recsys.tracking.callback import failure_of


class Recorder(FIFOScheduler):
    """Scheduler that keeps the record of a study up to date, decisions before they take effect."""

    def __init__(self, record: StudyRecord, pruner: Pruner, config: Config) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._record = record
        self._pruner = pruner
        self._config = config
        self._given_back: Counter[int] = Counter()

    def on_trial_result(
        self,
        tune_controller: TuneController,
        trial: Trial,
        result: dict[str, Any],
    ) -> str:
        """Write the report and decide whether the trial goes on; one that has come to its end is stopped here alike.

        Tune passes by a scheduler with a result that is `done` by itself, and takes what is raised after it for a failure of the
        trial; what is raised here ends the search.

        Raises:
            OSError: if the worker found a full disk, which the next trial would find too.
        """
        number = trial.config["number"]
        if "no_room" in result:
            raise OSError(errno.ENOSPC, result["no_room"])
        if "diverged" in result:
            return self._end(number, "diverged")
        is_new = self._write(trial, result)
        if result["is_last"]:
            return self._end(number, "complete")
        step = result["step"]
        if is_new and step in self._pruner.steps and self._pruner.prunes(number, step):
            return self._end(number, "pruned")
        return TrialScheduler.CONTINUE

    def on_trial_error(self, tune_controller: TuneController, trial: Trial) -> None:
        """Give a trial back whose worker died while it took the trial up: Tune retries those alone that have started.

        A trial that found no room on a GPU asks for twice the share when it is tried again, at most for a whole one.
        """
        number = trial.config["number"]
        if (
            trial.status == Trial.PENDING
            and self._given_back[number] < self._config.resources.max_failures
        ):
            self._given_back[number] += 1
            self._record.leave(number)
        *_, last = (failure_of(trial) or "").split("Failure # ")
        share = cast(PlacementGroupFactory, trial.placement_group_factory).required_resources.get(
            "GPU", 0.0
        )
        if "torch.OutOfMemoryError" in last and 0 < share < 1:
            trial.update_resources(placement(self._config, min(1.0, 2 * share)))

    def _end(self, number: int, state: str) -> str:
        self._record.finish(number, state)
        return TrialScheduler.STOP

    def _write(self, trial: Trial, result: dict[str, Any]) -> bool:
        metrics = {
            key.removeprefix("metrics/"): value
            for key, value in result.items()
            if key.startswith("metrics/")
        }
        self._record.ran_on(trial.config["number"], result["step"], result["node_ip"])
        return self._record.report(
            trial.config["number"], result["step"], metrics[self._config.metric_name], metrics
        )
