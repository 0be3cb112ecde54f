"""How Ray Tune and the record of the study meet: the searcher proposes trials, ASHA stops the weak ones.

Tune's own OptunaSearch tells Optuna that every trial is complete with its last value; here a stopped trial is told as pruned with
all its steps, so that the sampler learns from it what it is worth. ASHA's rungs are the values in the record, so that a resumed
search stops by the same standard.
"""

from typing import Any

from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from recsys.config import Config
from recsys.search.record import StudyRecord, trial_seed


class StudySearcher(Searcher):
    """Proposes the trials of a study; the values and all endings but failures are written by the scheduler."""

    def __init__(self, record: StudyRecord) -> None:
        super().__init__()
        self._record = record
        self._numbers: dict[str, int] = {}  # by Tune's ids, which are new in each run

    def suggest(self, trial_id: str) -> dict[str, Any]:
        """Begin the next trial."""
        number, config = self._record.ask()
        self._numbers[trial_id] = number
        seed = trial_seed(config.study.seed, number)
        return {"number": number, "seed": seed, "config": config.model_dump_json()}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:  # noqa: ARG002
        """Write that a trial failed for good: unlike a scheduler, a searcher is not told of failures that are retried."""
        number = self._numbers[trial_id]
        if error and self._record.is_running(number):
            self._record.finish(number, "failed")

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study's storage is the record."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the study's storage is the record."""


class AshaScheduler(FIFOScheduler):
    """Asynchronous successive halving by a trial's own epochs, on the values in the record.

    At each rung, the epochs grace_period * reduction_factor ** i, a trial goes on only if it is among the best
    1 / reduction_factor of those that have reached the rung, or the best of all.

    Source: Li et al. 2020, arXiv:1810.05934, sec. 3 (in the form that stops trials instead of pausing them).
    """

    def __init__(self, record: StudyRecord, config: Config) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._record = record
        self._metric_name = config.metric_name
        self._reduction_factor = config.study.reduction_factor
        self._rungs = set(rungs(config))

    def on_trial_result(self, tune_controller: TuneController, trial: Trial, result: dict[str, Any]) -> str:  # noqa: ARG002
        """Write the epoch and decide whether the trial goes on."""
        number, epoch = trial.config["number"], result["epoch"]
        is_new = self._write(trial, result)
        if is_new and epoch in self._rungs and not self._passes(number, epoch):
            self._record.finish(number, "pruned")
            return TrialScheduler.STOP
        return TrialScheduler.CONTINUE

    def on_trial_complete(self, tune_controller: TuneController, trial: Trial, result: dict[str, Any]) -> None:  # noqa: ARG002
        """A result that ends a trial by itself comes here alone; the ending of one that was stopped is written already."""
        number = trial.config["number"]
        if not self._record.is_running(number):
            return
        if not result.get("diverged"):
            self._write(trial, result)
        self._record.finish(number, "diverged" if result.get("diverged") else "complete")

    def _write(self, trial: Trial, result: dict[str, Any]) -> bool:
        metrics = {key.removeprefix("metrics/"): value for key, value in result.items() if key.startswith("metrics/")}
        return self._record.report(trial.config["number"], result["epoch"], metrics[self._metric_name], metrics)

    def _passes(self, number: int, epoch: int) -> bool:
        values = self._record.values_at(epoch)
        n_better = sum(value > values[number] for value in values.values())
        return n_better < max(1, len(values) // self._reduction_factor)


def rungs(config: Config) -> list[int]:
    """The epochs at which ASHA decides."""
    epochs, epoch = [], config.study.grace_period
    while epoch < config.training.max_epochs:
        epochs.append(epoch)
        epoch *= config.study.reduction_factor
    return epochs
