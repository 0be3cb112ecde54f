"""The folders of a study's trials: workers write files there, the driver deletes them.

A running trial has a checkpoint and perhaps its best weights. An ended trial keeps its best weights
if it is among the best of the study, its traceback if it failed, and nothing else.
"""

from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial

from recsys.search.record.study_record import StudyRecord
from recsys.search.record.summaries import TrialSummary, ranked
from recsys.search.tuning.messages import Report, message_of
from recsys.search.tuning.mlflow_callback import traceback_of
from recsys.search.tuning.trainable import CHECKPOINT, WEIGHTS
from recsys.storage.files import write_atomically
from recsys.storage.s3 import list_folder, move_in_s3, remove, url_of

TRACEBACK = "traceback.txt"
Defer = Callable[[Callable[[], None]], None]
"""Function that calls an action, now or later."""


def call_now(action: Callable[[], None]) -> None:
    """Call an action."""
    action()


class TrialFolders(Callback):
    """Callback that deletes the files of a trial that are no longer needed once it has ended."""

    def __init__(
        self, folder: Path, record: StudyRecord, n_kept: int, after_upload: Defer = call_now
    ) -> None:
        """Delete the unneeded files of trials that an earlier process ended.

        Args:
            folder: the folder in which each trial has a folder.
            record: the study's record, which has the states of the trials.
            n_kept: how many trials keep their weights.
            after_upload: calls an action once the record, as it is now, is uploaded.
        """
        self._folder = folder
        self._record = record
        self._n_kept = n_kept
        self._after_upload = after_upload
        summaries = record.summaries()
        self._best = self._best_of(
            [summary for summary in summaries if summary.state != "unfinished"]
        )
        existing = set(list_folder(folder))
        for summary in summaries:
            if str(summary.number) in existing:
                self._clean(summary)

    def on_trial_result(
        self,
        iteration: int,
        trials: list[Trial],
        trial: Trial,
        result: dict[str, Any],
        **_info: Any,
    ) -> None:
        """Put a new checkpoint into place; clean the folders where the result ended the trial."""
        number, message = trial.config["number"], message_of(result)
        if isinstance(message, Report) and message.checkpoint is not None:
            # A trial that resumed from a step that the record in S3 lacks would leave a gap there.
            folder = self._folder / str(number)
            self._after_upload(
                partial(move_in_s3, folder / message.checkpoint, folder / CHECKPOINT)
            )
        if result.get("done"):
            self._end(number)

    def on_trial_error(
        self,
        iteration: int,
        trials: list[Trial],
        trial: Trial,
        **_info: Any,
    ) -> None:
        """Write the traceback of a trial that failed and is not retried, and clean the folders."""
        number = trial.config["number"]
        if self._record.state_of(number) == "unfinished":
            return  # it will be retried
        if (text := traceback_of(trial)) is not None:
            with write_atomically(self._folder / str(number) / TRACEBACK) as file:
                file.write_text(text, encoding="utf-8")
        self._end(number)

    def _end(self, number: int) -> None:
        candidates = [*self._best, self._record.summary(number)]
        self._best = self._best_of(candidates)
        for candidate in candidates:
            self._clean(candidate)

    def _best_of(self, ended: list[TrialSummary]) -> list[TrialSummary]:
        return ranked([s for s in ended if s.choosable])[: self._n_kept]

    def _clean(self, trial: TrialSummary) -> None:
        """Delete unneeded files, with those that a killed worker had not written to the end."""
        folder = self._folder / str(trial.number)
        kept = {TRACEBACK}
        if trial.state == "unfinished":
            kept = {CHECKPOINT, WEIGHTS}
        elif trial in self._best:
            kept = {TRACEBACK, WEIGHTS}
        self._after_upload(partial(_keep_only, folder, kept))


def _keep_only(folder: Path, kept: Collection[str]) -> None:
    """Delete the files of a folder except `kept`, and a folder on disk if no file remains."""
    found = list_folder(folder)
    for name in found:
        if name not in kept:
            remove(folder / name)
    if found and url_of(folder) is None and not any(name in kept for name in found):
        folder.rmdir()
