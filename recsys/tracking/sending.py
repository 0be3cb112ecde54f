"""The sender of the outbox's operations: one or more requests each, and what an error means.

Runs in the outbox's thread. An operation may be sent twice, since an answer may be lost: the sender
looks for a run before it creates it again, and all other operations are idempotent. If MLflow has
lost runs, all operations are sent again from the first, which restores them.
"""

import logging
from collections.abc import Callable, Mapping

import requests
from mlflow.exceptions import MlflowException

from recsys.storage.credentials import without_passwords
from recsys.storage.path_errors import disk_full_reason
from recsys.tracking.outbox import StartOver
from recsys.tracking.outbox_file import Note, Operation
from recsys.tracking.runs import Tracking

SENDERS: dict[str, Callable[[Tracking, str, Operation], None]] = {
    "params": lambda tracking, run_id, o: tracking.log_params(run_id, o["params"]),
    "metrics": lambda tracking, run_id, o: tracking.log_metrics(
        run_id, o["metrics"], o["step"], o["time"]
    ),
    "tags": lambda tracking, run_id, o: tracking.set_tags(run_id, o["tags"]),
    "text": lambda tracking, run_id, o: tracking.log_text(run_id, o["text"], o["file"]),
    "table": lambda tracking, run_id, o: tracking.log_table(run_id, o["rows"], o["file"]),
    "reopen": lambda tracking, run_id, _: tracking.reopen_run(run_id),
    "end": lambda tracking, run_id, o: tracking.end_run(run_id, o["status"], o["time"]),
}
"""Operations on an existing run; `start` creates one."""

_REFUSALS = {
    "BAD_REQUEST",
    "INVALID_PARAMETER_VALUE",
    "RESOURCE_ALREADY_EXISTS",
    "RESOURCE_DOES_NOT_EXIST",
}
_REFUSAL_STATUSES = {400, 404, 413, 422}
"""Refusals of the artifact store. An expired login (401, 403) concerns all operations."""
_REASON_LENGTH = 300
_log = logging.getLogger(__name__)


class RunSender:
    """Sender of operations on a study's runs: a trial's by its number, the study's own by None."""

    def __init__(
        self,
        connect: Callable[[], Tracking],
        tracking: Tracking | None,
        run_ids: Mapping[int | None, str],
        attach: Callable[[int | None, str], None],
    ) -> None:
        """Prepare to send.

        Args:
            connect: opens the connection where `tracking` is None; called until it succeeds.
            tracking: the connection, if it is open.
            run_ids: the runs that earlier processes created; MLflow may have lost them since.
            attach: called with each run that is created: the trial's number, None for the study's
                own run, and the run's id.
        """
        self._connect = connect
        self._tracking = tracking
        self._run_ids = dict(run_ids)
        self._attach = attach
        self._has_started_over = False

    @property
    def study_run_id(self) -> str | None:
        """The id of the study's own run, None until it is created."""
        return self._run_ids.get(None)

    def send(self, operation: Operation, resent: bool) -> Note:
        """Send an operation, or skip it with a warning if MLflow refuses it.

        Args:
            operation: the operation.
            resent: it may have been sent before.

        Returns:
            `run_id` of a run that was started, or `refused` with the reason.

        Raises:
            ConnectionError: if MLflow does not answer, or answers that it cannot work now.
            StartOver: if it has lost a run that the operation needs; once in a process.
        """
        run, is_start = operation["run"], operation["do"] == "start"
        needed = None if is_start else run
        if needed not in self._run_ids and not (is_start and run is None):
            return {"refused": "its run was refused"}  # with a warning
        try:
            if not is_start:
                self._send_to_run(self._connected(), operation)
                return {}
            run_id = self._start(self._connected(), operation, resent)
        except (ConnectionError, StartOver):
            raise
        except Exception as error:  # artifact stores raise exceptions of their own
            reason = _reason(error)
            if not _is_refusal(error):
                raise ConnectionError(reason) from error
            if is_start:
                self._run_ids.pop(run, None)
            skipped = f"{operation['do']} of {_name(run)}"
            if is_start:
                skipped = f"{_name(run)}, and all that belongs to it,"
            _log.warning("MLflow refused %s (%s): it is left out.", skipped, reason)
            return {"refused": reason}
        self._run_ids[run] = run_id
        self._attach(run, run_id)
        return {"run_id": run_id}

    def _send_to_run(self, tracking: Tracking, operation: Operation) -> None:
        """Send an operation on a run; restore a deleted run and send the operation again."""
        run, send = operation["run"], SENDERS[operation["do"]]
        try:
            send(tracking, self._run_ids[run], operation)
        except MlflowException as error:
            if not _is_refusal(error) or not self._restore(tracking, run):
                raise
            send(tracking, self._run_ids[run], operation)

    def _restore(self, tracking: Tracking, run: int | None) -> bool:
        """Restore a run if it is deleted; return whether it was.

        Raises:
            StartOver: if MLflow no longer has the run; once in a process.
        """
        stage = tracking.lifecycle(self._run_ids[run])
        if stage is None and not self._has_started_over:
            self._has_started_over = True
            self._tracking = None  # the experiment may be lost, too
            raise StartOver
        if stage != "deleted":
            return False
        if not tracking.restore_experiment():
            tracking.restore_run(self._run_ids[run])
            _log.warning("In MLflow %s was deleted: it is restored.", _name(run))
        return True

    def _start(self, tracking: Tracking, operation: Operation, resent: bool) -> str:
        """Create a run, or find the one that an earlier request created, and return its id."""
        run, unique, parent = operation["run"], operation["unique"], None
        if run is not None:
            self._restore(tracking, None)
            parent = self._run_ids[None]
        found = set(tracking.find_runs(unique, parent)) if resent else set()
        if not found:
            created = tracking.create_run(
                operation["name"], operation["tags"] | unique, parent, operation["time"]
            )
            # MLflow's client retries a request without an answer, which may create a second run.
            found = {created, *tracking.find_runs(unique, parent)}
        first, *duplicates = sorted(found)
        for run_id in duplicates:
            tracking.delete_run(run_id)
        if resent and tracking.lifecycle(first) == "deleted":
            tracking.restore_run(first)
        former = self._run_ids.get(run)
        if former is not None and former != first:
            tracking.move_runs(former, first)
        return first

    def _connected(self) -> Tracking:
        """Return the connection, opened if needed.

        Raises:
            ConnectionError: if it cannot be opened.
        """
        try:
            self._tracking = self._tracking or self._connect()
        except (MlflowException, OSError) as error:
            raise ConnectionError(_reason(error)) from error
        return self._tracking


def _is_refusal(error: Exception) -> bool:
    """Return whether MLflow refuses this operation; other errors concern the server: retry."""
    if disk_full_reason(error) is not None:
        return False
    if isinstance(error, MlflowException):
        return error.error_code in _REFUSALS
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return error.response.status_code in _REFUSAL_STATUSES
    return not isinstance(error, OSError)


def _reason(error: Exception) -> str:
    text = (
        disk_full_reason(error)
        or without_passwords(" ".join(str(error).split()))
        or type(error).__name__
    )
    return text if len(text) <= _REASON_LENGTH else f"{text[:_REASON_LENGTH]}…"


def _name(run: int | None) -> str:
    return "the study's run" if run is None else f"the run of trial {run}"
