"""The runs of one study in MLflow: the study's own run, and a run per trial nested below it.

The search and Tune's callback call this; it appends operations to the outbox. An operation is
appended once, even if an earlier process appended it: the outbox keeps all of them.
"""

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from recsys.config.schema import Config
from recsys.storage.s3 import url_of
from recsys.tracking import operations
from recsys.tracking.connection import connect
from recsys.tracking.outbox import Outbox
from recsys.tracking.outbox_file import Operation, read_outbox
from recsys.tracking.runs import Tracking, trial_params
from recsys.tracking.sending import RunSender
from recsys.tracking.uri import tracking_uri

OUTBOX = "mlflow-outbox.jsonl"
STATUSES = {
    "complete": "FINISHED",
    "pruned": "FINISHED",
    "failed": "FAILED",
    "diverged": "FAILED",
    "unfinished": "KILLED",
}
"""Statuses of MLflow's runs by the states of trials in the record."""


@dataclass
class _TrialRun:
    """State of a trial's run after all operations; `status` is None while it is open."""

    last_step: int = 0
    status: str | None = None


class StudyRuns:
    """Logger of a study to MLflow; only `flush` and `close` wait for requests."""

    def __init__(
        self, outbox: Outbox, sender: RunSender, study: str, earlier: Sequence[Operation]
    ) -> None:
        """Start to log, or resume.

        Args:
            outbox: the outbox of the study.
            sender: the outbox's sender.
            study: the study's name.
            earlier: the operations that earlier processes appended.
        """
        self._outbox = outbox
        self._sender = sender
        self._study = study
        self._trials: dict[int, _TrialRun] = {}
        self._best: tuple[int, dict[str, float]] | None = None
        self.is_new = not earlier
        """No process has logged the study before."""
        for operation in earlier:
            self._note(operation)

    @property
    def run_id(self) -> str | None:
        """The id of the study's own run in MLflow, None until it is created."""
        return self._sender.study_run_id

    @property
    def connection_error(self) -> ConnectionError | None:
        """Error of the last attempt to reach MLflow, None if it answered."""
        return self._outbox.connection_error

    def has_ended(self, number: int, state: str) -> bool:
        """Return whether a trial's run has the status of this state."""
        return self._trials.get(number, _TrialRun()).status == STATUSES[state]

    def last_step(self, number: int) -> int:
        """Return the last step that was logged of a trial, 0 if none was."""
        return self._trials.get(number, _TrialRun()).last_step

    def start(self, tags: Mapping[str, object], texts: Mapping[str, str]) -> None:
        """Start the study's own run with its tags, and with texts as artifacts by name."""
        tags = {"kind": "study", "study": self._study, "state": "running", **tags}
        self._put(
            operations.start(None, self._study, tags, {"study_id": uuid.uuid4().hex}),
            *(operations.log_text(None, name, text) for name, text in texts.items()),
        )

    def resume(self) -> None:
        """Reopen the study's own run."""
        self._put(*operations.reopen(None))

    def end(
        self, state: str, best: Mapping[str, Any] | None, rows: Sequence[Mapping[str, Any]]
    ) -> None:
        """End the study's own run.

        Args:
            state: `complete`, or `interrupted`.
            best: `trial`, `epoch` and `metrics` of the best trial.
            rows: the leaderboard.
        """
        if rows:
            self._put(operations.log_table("leaderboard.json", rows))
        if best:
            self._put(operations.set_tags(None, {"best_trial": best["trial"]}))
        if best and self._best != (best["epoch"], best["metrics"]):
            self._put(operations.log_metrics(None, best["metrics"], best["epoch"]))
        status = "KILLED" if state == "interrupted" else "FINISHED"
        self._put(operations.set_tags(None, {"state": state}), operations.end(None, status))

    def start_trial(self, number: int, config: Config, seed: int) -> None:
        """Start a trial's run, or reopen it if an earlier process ended it."""
        if number not in self._trials:
            tags = {
                "study": self._study,
                "state": "running",
                "model": config.model.name,
                "dataset": config.data.source,
            }
            unique = {"kind": "trial", "trial": number}
            self._put(
                operations.start(number, f"{self._study}/{number}", tags, unique),
                operations.log_params(number, {**trial_params(config), "seed": seed}),
            )
        elif self._trials[number].status is not None:
            self._put(*operations.reopen(number))

    def log_step(
        self,
        number: int,
        step: int,
        epoch: int,
        is_whole_epoch: bool,
        metrics: Mapping[str, float],
    ) -> None:
        """Log a step of a trial, once.

        A whole epoch is logged at its own number; an earlier segment as `partial/...` at the step.
        """
        if step <= self._trials[number].last_step:
            return
        if is_whole_epoch:
            operation = operations.log_metrics(number, metrics, epoch)
        else:
            partial_metrics = {f"partial/{name}": value for name, value in metrics.items()}
            operation = operations.log_metrics(number, partial_metrics, step)
        self._put({**operation, "reached": step})

    def end_trial(self, number: int, state: str, error: str | None = None) -> None:
        """End a trial's run in the record's state, with the traceback of a failure.

        Does nothing if the run was not started or has ended.
        """
        run = self._trials.get(number)
        if run is None or run.status is not None:
            return
        if error is not None:
            self._put(operations.log_text(number, "traceback.txt", error))
        self._put(
            operations.set_tags(number, {"state": state}),
            operations.end(number, STATUSES[state]),
        )

    @property
    def n_kept(self) -> int:
        """Operations in the outbox, sent or not."""
        return self._outbox.n_kept

    def release(self, n: int) -> None:
        """Send the first `n` operations of a study in S3, which are uploaded."""
        self._outbox.release(n)

    def flush(self, limit: float | None = None) -> bool:
        """Wait until all is sent, while MLflow answers, for at most `limit` seconds.

        Returns:
            Whether all is sent.

        Raises:
            OSError: if the outbox cannot be written.
            RuntimeError: if an unexpected error has ended the outbox's thread.
        """
        return self._outbox.flush(limit)

    def close(self, limit: float | None = None) -> None:
        """Flush, and warn of unsent operations.

        Raises:
            OSError: if the outbox cannot be written.
            RuntimeError: if an unexpected error has ended the outbox's thread.
        """
        self._outbox.close(limit)

    def _put(self, *new: Operation) -> None:
        self._outbox.append(*new)
        for operation in new:
            self._note(operation)

    def _note(self, operation: Operation) -> None:
        """Update the state of a run by an operation."""
        if (number := operation["run"]) is None:
            if operation["do"] == "metrics":
                self._best = operation["step"], operation["metrics"]
            return
        run = self._trials.setdefault(number, _TrialRun())
        run.last_step = operation.get("reached", run.last_step)
        if operation["do"] in ("end", "reopen"):
            run.status = operation.get("status")


def open_study_runs(
    config: Config,
    folder: Path,
    study_folder: Path,
    tracking: Tracking | None,
    attach: Callable[[int | None, str], None],
) -> StudyRuns:
    """Open the logger of a study, new or resumed, and start to send what its outbox holds.

    Args:
        config: has MLflow's address.
        folder: the command's `--dir`.
        study_folder: the study's folder, whose name is the study's.
        tracking: the connection to MLflow, or None to retry until there is one.
        attach: called in the outbox's thread with each run that is created: the trial's number
            (None for the study's own run) and the run's id.

    Raises:
        InputError: if the outbox of the study is damaged.
    """
    path = study_folder / OUTBOX
    entries = read_outbox(path)
    run_ids = {
        entry.operation["run"]: entry.note["run_id"]
        for entry in entries
        if entry.note and "run_id" in entry.note
    }
    sender = RunSender(partial(connect, config, folder), tracking, run_ids, attach)
    uri = tracking_uri(config, folder) or "no place"
    outbox = Outbox(path, entries, sender.send, uri, held=url_of(study_folder) is not None)
    return StudyRuns(outbox, sender, study_folder.name, [entry.operation for entry in entries])
