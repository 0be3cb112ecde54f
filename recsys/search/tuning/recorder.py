"""The recorder: Ray Tune's scheduler, which stores each report in the record and ends trials.

The pruner (`pruning`) decides whether a trial is pruned; the recorder stores what it decides.
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
from recsys.search.record.study_record import StudyRecord
from recsys.search.tuning.messages import DiskFull, Diverged, Report, message_of
from recsys.search.tuning.mlflow_callback import traceback_of
from recsys.search.tuning.pruning import Pruner


class Recorder(FIFOScheduler):
    """Scheduler that stores reports and decisions in the record before they take effect."""

    def __init__(self, record: StudyRecord, pruner: Pruner, config: Config) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._record = record
        self._pruner = pruner
        self._config = config
        self._requeued: Counter[int] = Counter()
        """Retries by trial number that the recorder started itself."""

    def on_trial_result(
        self,
        tune_controller: TuneController,
        trial: Trial,
        result: dict[str, Any],
    ) -> str:
        """Store a report, and stop the trial if it has finished, diverged or is pruned.

        The worker does not mark its last result as `done`: Tune would not call the scheduler with
        it, and would take an error raised later for a failure of the trial. An error raised here
        ends the search.

        Raises:
            OSError: if the worker's disk is full, as it would be for the next trial.
        """
        number, message = trial.config["number"], message_of(result)
        match message:
            case DiskFull():
                raise OSError(errno.ENOSPC, message.reason)
            case Diverged():
                return self._end(number, "diverged")
        is_new = self._store(number, message, result["node_ip"])
        if message.on_all_users is not None:
            self._record.store_on_all_users(number, message.on_all_users)
        if message.is_last:
            return self._end(number, "complete")
        step, pruner = message.step, self._pruner
        if is_new and step in pruner.steps_of(number) and pruner.prunes(number, step):
            return self._end(number, "pruned")
        return TrialScheduler.CONTINUE

    def on_trial_error(self, tune_controller: TuneController, trial: Trial) -> None:
        """Requeue a trial whose worker died before it started; Tune retries only started ones.

        A trial that ran out of GPU memory is retried with twice its share of a GPU, at most one.
        """
        number = trial.config["number"]
        if (
            trial.status == Trial.PENDING
            and self._requeued[number] < self._config.resources.max_failures
        ):
            self._requeued[number] += 1
            self._record.requeue(number)
        *_, last = (traceback_of(trial) or "").split("Failure # ")
        requested = cast(PlacementGroupFactory, trial.placement_group_factory).required_resources
        share = requested.get("GPU", 0.0)
        if "torch.OutOfMemoryError" in last and 0 < share < 1:
            trial.update_resources(placement(self._config, min(1.0, 2 * share)))

    def _end(self, number: int, state: str) -> str:
        self._record.finish(number, state)
        return TrialScheduler.STOP

    def _store(self, number: int, report: Report, node: str) -> bool:
        """Store a report and its node.

        Returns:
            False if the step was not ranked, or an earlier attempt had reported it.
        """
        self._record.store_node(number, report.step, node)
        value = report.metrics.get(self._config.metric_name)
        return value is not None and self._record.report(number, report.step, value, report.metrics)
