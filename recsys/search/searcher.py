"""How Ray Tune and the record of the study meet: the searcher proposes trials, ASHA stops the weak ones.

Tune's own OptunaSearch tells Optuna that every trial is complete with its last value; here a stopped trial is told as pruned with
all its steps, so that the sampler learns from it what it is worth. ASHA's rungs are the values in the record, so that a resumed
search stops by the same standard.
"""

import errno
import math
from collections import Counter
from collections.abc import Callable
from typing import Any, cast

from ray.tune import PlacementGroupFactory
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from recsys.config import Config
from recsys.search.record import StudyRecord, trial_seed
from recsys.search.resources import placement
from recsys.tracking.callback import failure_of


class StudySearcher(Searcher):
    """Proposes the trials of a study; the values and all endings but failures are written by the scheduler."""

    def __init__(self, record: StudyRecord, limit: int | None, n_slots: Callable[[], int]) -> None:
        """Propose until `limit` trials have ended, without end where it is None, while fewer run than there are slots."""
        super().__init__()
        self._record = record
        self._limit = limit
        self._n_slots = n_slots
        self._numbers: dict[str, int] = {}  # by Tune's ids, which are new in each run

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]
        """Begin the next trial. None while there is no slot, or the last ones run, of which one may be given back.

        `FINISHED` after them.
        """
        n_running = self._record.n_running
        if n_running >= self._n_slots():
            return None
        if self._limit is not None and self._record.n_finished + n_running >= self._limit:
            return None if n_running else Searcher.FINISHED
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

    At each rung, the first report from grace_period * reduction_factor ** i epochs on, a trial goes on only if it is among the
    best 1 / reduction_factor of those that have reached the rung, or the best of fewer than reduction_factor. Among so few, what
    the search started with goes on in any case: it was chosen, and may learn slowly and come out best.

    Source: Li et al. 2020, arXiv:1810.05934, sec. 3 (in the form that stops trials instead of pausing them).
    """

    def __init__(self, record: StudyRecord, config: Config) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._record = record
        self._metric_name = config.metric_name
        self._reduction_factor = config.study.reduction_factor
        self._rungs = rungs(config, record.parts)
        self._config = config
        self._given_back: Counter[int] = Counter()

    def on_trial_result(self, tune_controller: TuneController, trial: Trial, result: dict[str, Any]) -> str:  # noqa: ARG002
        """Write the report and decide whether the trial goes on; one that has come to its end is stopped here alike.

        Tune passes by a scheduler with a result that is `done` by itself, and takes what is raised after it for a failure of the
        trial; what is raised here ends the search.

        Raises:
            OSError: if the worker found a full disk, which the next trial would find too.
        """
        number, step = trial.config["number"], result.get("step")
        if "no_room" in result:
            raise OSError(errno.ENOSPC, result["no_room"])
        if "diverged" in result:
            return self._end(number, "diverged")
        is_new = self._write(trial, result)
        if result["is_last"]:
            return self._end(number, "complete")
        if is_new and step in self._rungs and not self._passes(number, step):
            return self._end(number, "pruned")
        return TrialScheduler.CONTINUE

    def on_trial_error(self, tune_controller: TuneController, trial: Trial) -> None:  # noqa: ARG002
        """Give a trial back whose worker died while it took the trial up: Tune retries those alone that have started.

        A trial that found no room on a GPU asks for twice the share when it is tried again, at most for a whole one.
        """
        number = trial.config["number"]
        if trial.status == Trial.PENDING and self._given_back[number] < self._config.resources.max_failures:
            self._given_back[number] += 1
            self._record.leave(number)
        *_, last = (failure_of(trial) or "").split("Failure # ")
        share = cast(PlacementGroupFactory, trial.placement_group_factory).required_resources.get("GPU", 0.0)
        if "torch.OutOfMemoryError" in last and 0 < share < 1:
            trial.update_resources(placement(self._config, min(1.0, 2 * share)))

    def _end(self, number: int, state: str) -> str:
        self._record.finish(number, state)
        return TrialScheduler.STOP

    def _write(self, trial: Trial, result: dict[str, Any]) -> bool:
        metrics = {key.removeprefix("metrics/"): value for key, value in result.items() if key.startswith("metrics/")}
        self._record.ran_on(trial.config["number"], result["step"], result["node_ip"])
        return self._record.report(trial.config["number"], result["step"], metrics[self._metric_name], metrics)

    def _passes(self, number: int, step: int) -> bool:
        values = self._record.values_at(step)
        n_better = sum(value > values[number] for value in values.values())
        n_passing = len(values) // self._reduction_factor
        return n_better < max(1, n_passing) or (n_passing == 0 and self._record.is_start(number))


def rungs(config: Config, parts: int) -> set[int]:
    """The steps, of which an epoch has `parts`, at which ASHA decides."""
    steps, epochs = set(), config.study.grace_period
    while math.ceil(epochs * parts) < config.training.max_epochs * parts:
        steps.add(math.ceil(epochs * parts))
        epochs *= config.study.reduction_factor
    return steps
