"""The searcher of Ray Tune, which proposes the trials of a study out of its record.

Tune's own OptunaSearch reports every trial to Optuna as complete with its last value. Here reports and endings are written by the
recorder, and a pruned trial is pruned in the record too, so that the sampler learns what it is worth.
"""

from collections.abc import Callable
from typing import Any

from ray.tune.search import Searcher

from recsys.search.record.record import StudyRecord, trial_seed


class StudySearcher(Searcher):
    """Searcher over the trials of a study; the recorder writes the values and all endings but failures."""

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

    def on_trial_complete(
        self,
        trial_id: str,
        result: dict[str, Any] | None = None,
        error: bool = False,
    ) -> None:
        """Write that a trial failed for good: unlike a scheduler, a searcher is not told of failures that are retried."""
        number = self._numbers[trial_id]
        if error and self._record.is_running(number):
            self._record.finish(number, "failed")

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study's storage is the record."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the study's storage is the record."""
