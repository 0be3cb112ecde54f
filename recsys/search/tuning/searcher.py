"""The searcher of Ray Tune, which starts the trials of a study from its record.

Tune's own OptunaSearch reports every trial to Optuna as complete with its last value. Here the
recorder stores the values and states, so that the sampler learns which trials were pruned.
"""

from collections.abc import Callable
from typing import Any

from ray.tune.search import Searcher

from recsys.config.schema import Config
from recsys.search.record.running_trial import trial_seed
from recsys.search.record.study_record import StudyRecord
from recsys.search.tuning.pruning import Pruner
from recsys.search.tuning.schedule import Schedule

_PROPOSALS = 20
"""Proposals that are refused for their cost, one after another, before the next may cost more."""


class StudySearcher(Searcher):
    """Searcher over the trials of a study; it stores failures, the recorder all other states."""

    def __init__(
        self,
        record: StudyRecord,
        pruner: Pruner,
        limit: int | None,
        n_slots: Callable[[], int],
        schedule: Schedule | None,
    ) -> None:
        """Prepare to start trials.

        Args:
            record: the record of the study.
            pruner: the pruner of its trials.
            limit: number of ended trials at which the search ends; None for no limit.
            n_slots: returns how many trials may run at a time now.
            schedule: what fits the time budget; None without one.
        """
        super().__init__()
        self._record = record
        self._pruner = pruner
        self._limit = limit
        self._n_slots = n_slots
        self._schedule = schedule
        self._is_over = False
        self._numbers: dict[str, int] = {}  # by Tune's ids, which are new in each run

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]
        """Start the next trial and return its Tune config.

        Returns None while no slot is free, or while the last trials run, since one of them may
        have to be retried; `FINISHED` once all have ended.
        """
        n_running = self._record.n_running
        if n_running >= self._n_slots():
            return None
        is_last = self._limit is not None and self._record.n_finished + n_running >= self._limit
        started = None if is_last or self._is_over else self._start()
        if started is None:
            return None if n_running else Searcher.FINISHED
        number, config = started
        self._numbers[trial_id] = number
        return {
            "number": number,
            "seed": trial_seed(config.study.seed, number),
            "config": config.model_dump_json(),
            "pruning_steps": sorted(self._pruner.steps_of(number)),
        }

    def _start(self) -> tuple[int, Config] | None:
        """Start a trial that fits the time budget, None if no proposal does any more."""
        schedule = self._schedule
        if schedule is None:
            return self._record.ask()
        for attempt in range(2 * _PROPOSALS):
            number, config = self._record.ask(schedule.plan)
            is_chosen = attempt >= _PROPOSALS or not self._record.is_proposal(number)
            if schedule.admits(config, whatever_it_costs=is_chosen):
                return number, config
            self._record.skip(number)
        self._is_over = True
        return None

    def on_trial_complete(
        self,
        trial_id: str,
        result: dict[str, Any] | None = None,
        error: bool = False,
    ) -> None:
        """Store that a trial failed; Tune reports here a failure that it does not retry."""
        number = self._numbers[trial_id]
        if error and self._record.is_running(number):
            self._record.finish(number, "failed")

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the study's storage is the record."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing: the study's storage is the record."""
