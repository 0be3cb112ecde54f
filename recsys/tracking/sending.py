"""How an operation of the outbox reaches MLflow: which request it is, and what an error means.

Runs in the outbox's thread. Every operation may be sent twice, as an answer may be lost: a run is looked for before it is made
again, and everything else says the same thing when it is said again. So may all operations, from the first: that makes anew what
MLflow has lost, and changes nothing else.
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
"""The operations on a run that there is; `start` makes one."""

_REFUSALS = {
    "BAD_REQUEST",
    "INVALID_PARAMETER_VALUE",
    "RESOURCE_ALREADY_EXISTS",
    "RESOURCE_DOES_NOT_EXIST",
}
_REFUSAL_STATUSES = {400, 404, 413, 422}
"""Of the artifact store, which answers by HTTP statuses. A login that has run out (401, 403) refuses no single operation."""
_REASON_LENGTH = 300
_log = logging.getLogger(__name__)


class RunSender:
    """Sends the operations on a study's runs; a run is a trial's number, or None for the study's own."""

    def __init__(
        self,
        connect: Callable[[], Tracking],
        tracking: Tracking | None,
        run_ids: Mapping[int | None, str],
        attach: Callable[[int | None, str], None],
    ) -> None:
        """Prepare to send.

        Args:
            connect: opens the connection where `tracking` is None, as often as it takes.
            tracking: the connection, if it is open.
            run_ids: the runs that were made in earlier processes, MLflow may have lost them since.
            attach: called with each run that is made: the trial's number, None for the study's own, and the id.
        """
        self._connect = connect
        self._tracking = tracking
        self._run_ids = dict(run_ids)
        self._attach = attach
        self._has_started_over = False

    @property
    def study_run_id(self) -> str | None:
        """The study's own run, None until it is made."""
        return self._run_ids.get(None)

    def send(self, operation: Operation, doubtful: bool) -> Note:
        """Send an operation; one that MLflow refuses is left out with a warning.

        Returns:
            `run_id` of a run that was started, or `refused` with the reason.

        Raises:
            ConnectionError: if MLflow does not answer, or answers that it cannot work now.
            StartOver: if it has lost a run that is needed; once in a process.
        """
        run, is_start = operation["run"], operation["do"] == "start"
        needed = None if is_start else run
        if needed not in self._run_ids and not (is_start and run is None):
            return {"refused": "its run was refused"}  # which the warning of that time told
        try:
            if not is_start:
                self._send_to_run(self._connected(), operation)
                return {}
            run_id = self._start(self._connected(), operation, doubtful)
        except (ConnectionError, StartOver):
            raise
        except Exception as error:  # stores of artifacts raise kinds of their own
            reason = _reason(error)
            if not _is_refusal(error):
                raise ConnectionError(reason) from error
            if is_start:
                self._run_ids.pop(run, None)
            left_out = (
                f"{_name(run)}, and all that belongs to it,"
                if is_start
                else f"{operation['do']} of {_name(run)}"
            )
            _log.warning("MLflow refused %s (%s): it is left out.", left_out, reason)
            return {"refused": reason}
        self._run_ids[run] = run_id
        self._attach(run, run_id)
        return {"run_id": run_id}

    def _send_to_run(self, tracking: Tracking, operation: Operation) -> None:
        """Send an operation on a run, again if it was refused because the run was deleted."""
        run, send = operation["run"], SENDERS[operation["do"]]
        try:
            send(tracking, self._run_ids[run], operation)
        except MlflowException as error:
            if not _is_refusal(error) or not self._restore(tracking, run):
                raise
            send(tracking, self._run_ids[run], operation)

    def _restore(self, tracking: Tracking, run: int | None) -> bool:
        """Restore a run that is deleted, and return whether it was.

        Raises:
            StartOver: if MLflow has no such run any more; once in a process.
        """
        stage = tracking.lifecycle(self._run_ids[run])
        if stage is None and not self._has_started_over:
            self._has_started_over = True
            self._tracking = None  # its experiment may be gone, too
            raise StartOver
        if stage != "deleted":
            return False
        if not tracking.restore_experiment():
            tracking.restore_run(self._run_ids[run])
            _log.warning("In MLflow %s was deleted: it is restored.", _name(run))
        return True

    def _start(self, tracking: Tracking, operation: Operation, doubtful: bool) -> str:
        """Make a run, or find the one that an unanswered request or an earlier process made."""
        run, unique, parent = operation["run"], operation["unique"], None
        if run is not None:
            self._restore(tracking, None)
            parent = self._run_ids[None]
        found = set(tracking.find_runs(unique, parent)) if doubtful else set()
        if not found:
            made = tracking.create_run(
                operation["name"], operation["tags"] | unique, parent, operation["time"]
            )
            # MLflow repeats a request by itself that was not answered, so that there may be two by now.
            found = {made, *tracking.find_runs(unique, parent)}
        first, *doubled = sorted(found)
        for run_id in doubled:
            tracking.delete_run(run_id)
        if doubtful and tracking.lifecycle(first) == "deleted":
            tracking.restore_run(first)
        former = self._run_ids.get(run)
        if former is not None and former != first:
            tracking.move_runs(former, first)
        return first

    def _connected(self) -> Tracking:
        """Return the connection.

        Raises:
            ConnectionError: if there is none.
        """
        try:
            self._tracking = self._tracking or self._connect()
        except (MlflowException, OSError) as error:
            raise ConnectionError(_reason(error)) from error
        return self._tracking


def _is_refusal(error: Exception) -> bool:
    """Whether an error speaks against this one operation; what else there is concerns the server and is tried again."""
    if disk_full_reason(error) is not None:
        return False
    if isinstance(error, MlflowException):
        return error.error_code in _REFUSALS
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return error.response.status_code in _REFUSAL_STATUSES
    return not isinstance(error, OSError)


def _reason(error: Exception) -> str:
    told = (
        disk_full_reason(error)
        or without_passwords(" ".join(str(error).split()))
        or type(error).__name__
    )
    return told if len(told) <= _REASON_LENGTH else f"{told[:_REASON_LENGTH]}…"


def _name(run: int | None) -> str:
    return "the study's run" if run is None else f"the run of trial {run}"
