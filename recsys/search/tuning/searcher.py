"""The searcher of Ray Tune, which starts the trials of a study from its record.

Tune's own OptunaSearch reports every trial to Optuna as complete with its last value. Here the
recorder stores the values and states, so that the sampler learns which trials were pruned.
"""

from collections.abc import Callable
from typing import Any

from ray.tune.search import Searcher

from recsys.search.record.study_record import StudyRecord, trial_seed


class StudySearcher(Searcher):
    """Searcher over the trials of a study; it stores failures, the recorder all other states."""

    def __init__(self, record: StudyRecord, limit: int | None, n_slots: Callable[[], int]) -> None:
        """Prepare to start trials.

        Args:
            record: the record of the study.
            limit: number of ended trials at which the search ends; None for no limit.
            n_slots: returns how many trials may run at a time now.
        """
        super().__init__()
        self._record = record
        self._limit = limit
        self._n_slots = n_slots
        self._numbers: dict[str, int] = {}  # by Tune's ids, which are new in each run

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]
        """Start the next trial and return its Tune config.

        Returns None while no slot is free, or while the last trials run, since one of them may
        have to be retried; `FINISHED` once all have ended.
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
