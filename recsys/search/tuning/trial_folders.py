"""The folder that each trial has in its study: what a trial leaves there, and what is kept of it once it has ended.

Stands between the workers, which write, and the driver, which knows the record and deletes. A running trial has a checkpoint; an
ended one has its best weights if it is among the best of the study, the traceback if it failed, and nothing else.
"""

from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial

from recsys.search.record.record import StudyRecord
from recsys.search.record.summaries import TrialSummary, ranked
from recsys.search.tuning.trainable import CHECKPOINT, WEIGHTS
from recsys.storage.files import write_atomically
from recsys.storage.s3 import move, names, remove, url_of
from recsys.tracking.callback import failure_of

TRACEBACK = "traceback.txt"
Later = Callable[[Callable[[], None]], None]
"""Does something, at once or when its time has come."""


def at_once(action: Callable[[], None]) -> None:
    """Do it."""
    action()


class TrialFolders(Callback):
    """Deletes what is not kept of a trial, as soon as the trial has ended."""

    def __init__(
        self, folder: Path, record: StudyRecord, n_kept: int, later: Later = at_once
    ) -> None:
        """Begin with what an earlier process left.

        Args:
            folder: where the trials have their folders.
            record: tells how trials ended.
            n_kept: how many trials keep their weights.
            later: does what must wait until the record lies where it is gone on from.
        """
        self._folder = folder
        self._record = record
        self._n_kept = n_kept
        self._later = later
        summaries = record.summaries()
        self._best = self._best_of(
            [summary for summary in summaries if summary.state != "unfinished"]
        )
        left = set(names(folder))
        for summary in summaries:
            if str(summary.number) in left:
                self._tidy(summary)

    def on_trial_result(
        self,
        iteration: int,
        trials: list[Trial],
        trial: Trial,
        result: dict[str, Any],
        **_info: Any,
    ) -> None:
        """Keep of a trial that this result ended what is to be kept, and delete what it takes the place of."""
        number = trial.config["number"]
        if "saved" in result:
            # In S3 a checkpoint counts once the record has all that came before it, else epochs would be missing there.
            folder = self._folder / str(number)
            self._later(partial(move, folder / result["saved"], folder / CHECKPOINT))
        if result.get("done"):
            self._end(number)

    def on_trial_error(
        self,
        iteration: int,
        trials: list[Trial],
        trial: Trial,
        **_info: Any,
    ) -> None:
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
        self._later(partial(_keep_only, folder, kept))


def _keep_only(folder: Path, kept: Collection[str]) -> None:
    """Delete all files of a folder but those to be kept, and a folder on disk that is empty then."""
    found = names(folder)
    for name in found:
        if name not in kept:
            remove(folder / name)
    if found and url_of(folder) is None and not any(name in kept for name in found):
        folder.rmdir()
