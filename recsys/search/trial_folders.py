"""The folder that each trial has in its study: what a trial leaves there, and what is kept of it once it has ended.

Stands between the workers, which write, and the driver, which knows the record and deletes. A running trial has a checkpoint; an
ended one has its best weights if it is among the best of the study, the traceback if it failed, and nothing else.
"""

from pathlib import Path
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial

from recsys.search.record import StudyRecord
from recsys.search.summaries import TrialSummary, ranked
from recsys.search.trial import CHECKPOINT, WEIGHTS
from recsys.storage import write_atomically
from recsys.tracking.callback import failure_of

TRACEBACK = "traceback.txt"


class TrialFolders(Callback):
    """Deletes what is not kept of a trial, as soon as the trial has ended."""

    def __init__(self, folder: Path, record: StudyRecord, n_kept: int) -> None:
        """Begin with what an earlier process left.

        Args:
            folder: where the trials have their folders.
            record: tells how trials ended.
            n_kept: how many trials keep their weights.
        """
        self._folder = folder
        self._record = record
        self._n_kept = n_kept
        summaries = record.summaries()
        self._best = self._best_of([summary for summary in summaries if summary.state != "unfinished"])
        for summary in summaries:
            self._tidy(summary)

    def on_trial_result(self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **_info: Any) -> None:  # noqa: ARG002
        """Keep of a trial that this result ended what is to be kept, and delete what it takes the place of."""
        if result.get("done"):
            self._end(trial.config["number"])

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **_info: Any) -> None:  # noqa: ARG002
        """Keep the traceback of a trial that failed for good."""
        number = trial.config["number"]
        if self._record.ending(number) == "unfinished":
            return  # it was given back
        if (told := failure_of(trial)) is not None:
            with write_atomically(self._folder / str(number) / TRACEBACK) as file:
                file.write_text(told, encoding="utf-8")
        self._end(number)

    def _end(self, number: int) -> None:
        candidates = [*self._best, self._record.summary(number)]
        self._best = self._best_of(candidates)
        for candidate in candidates:
            self._tidy(candidate)

    def _best_of(self, ended: list[TrialSummary]) -> list[TrialSummary]:
        return ranked([summary for summary in ended if summary.choosable])[: self._n_kept]

    def _tidy(self, trial: TrialSummary) -> None:
        """Delete what is not kept of a trial, and what a killed worker left half written."""
        folder = self._folder / str(trial.number)
        kept = {TRACEBACK}
        if trial.state == "unfinished":
            kept = {CHECKPOINT, WEIGHTS}
        elif trial in self._best:
            kept = {TRACEBACK, WEIGHTS}
        files = list(folder.iterdir()) if folder.is_dir() else []
        for file in files:
            if file.name not in kept:
                file.unlink()
        if files and not any(file.name in kept for file in files):
            folder.rmdir()
