"""The outbox: sends what MLflow is to be told, in order, in a thread of its own.

Stands between the search, which puts operations in and never waits for a request, and the tracking store, which may be away for
minutes or until the next start. What is put in is kept in a file meanwhile (`outbox_file`).
"""

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from recsys.storage.path_errors import disk_full_reason
from recsys.tracking.outbox_file import Kept, Note, Operation, append_entries, read_outbox

Send = Callable[[Operation, bool], Note]
"""Sends an operation, which may have been sent before if the flag says so, and returns what is to be noted.

It raises `ConnectionError` if the operation is to be sent again later, and `StartOver` if all are, from the first."""

PATIENCE_SECONDS = 5.0
"""How long `flush` waits for a server that does not answer."""
_FIRST_DELAY, _LONGEST_DELAY = 1.0, 30.0
_HURRIED_DELAY = 0.25
"""Between the attempts while somebody waits in `flush`."""
_log = logging.getLogger(__name__)


class StartOver(Exception):  # noqa: N818 (nothing is wrong with the operation)
    """The receiver has lost operations that were sent before."""


class Outbox:
    """Keeps operations in a file and sends them."""

    def __init__(
        self, path: Path, kept: Sequence[Kept], send: Send, place: str, *, held: bool = False
    ) -> None:
        """Begin to send.

        Args:
            path: the file, made with the first operation.
            kept: what the file holds, as `read_outbox` tells.
            send: sends one operation.
            place: what warnings call the receiver.
            held: whether operations wait until they are released.
        """
        self._path = path
        self._send = send
        self._place = place
        self._pending = deque((entry.operation, True) for entry in kept if not entry.sent)
        self._n_sent = len(kept) - len(self._pending)
        self._n_released = len(kept) if held else math.inf
        self._changed = threading.Condition()
        self._answered = 0.0
        self._hurry = self._closed = self._warned = False
        self.away: ConnectionError | None = None
        """Why the last attempt was not answered, None where it was."""
        self._failure: Exception | None = None
        threading.Thread(target=self._run, name="mlflow-outbox", daemon=True).start()

    def append(self, *operations: Operation) -> None:
        """Keep operations, all or none of them, and return at once; they are sent after all that were put in before.

        Raises:
            OSError: if the file cannot be written.
            RuntimeError: if sending came to an end by a fault.
        """
        with self._changed:
            self._check()
            append_entries(self._path, *operations)
            self._pending.extend((operation, False) for operation in operations)
            self._changed.notify_all()

    @property
    def n_kept(self) -> int:
        """Operations that are in the file."""
        with self._changed:
            return self._n_sent + len(self._pending)

    def release(self, n: int) -> None:
        """Let the first `n` operations be sent, of an outbox that is held."""
        with self._changed:
            self._n_released = max(self._n_released, n)
            self._changed.notify_all()

    def flush(self, limit: float | None = None) -> bool:
        """Wait until all is sent, as long as the server answers, and at most `limit` seconds. Returns whether all is sent.

        Raises:
            OSError: if the file cannot be written.
            RuntimeError: if sending came to an end by a fault.
        """
        with self._changed:
            began = time.monotonic()
            self._hurry = True
            self._changed.notify_all()
            while self._pending and self._failure is None:
                end = max(began, self._answered) + PATIENCE_SECONDS
                left = min(end, began + limit if limit is not None else end) - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            self._hurry = False
            self._check()
            return not self._pending

    def close(self, limit: float | None = None) -> None:
        """Flush, end the thread and tell what is left, which the next start sends.

        Raises:
            OSError: if the file cannot be written.
            RuntimeError: if sending came to an end by a fault.
        """
        done = self.flush(limit)
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            left = len(self._pending)
        if not done:
            told = "MLflow at %s %s: %d operations are kept in %s; --resume sends them."
            _log.warning(told, self._place, self._fault(), left, self._path)

    def _run(self) -> None:
        try:
            while (entry := self._next()) is not None:
                self._deliver(*entry)
        except Exception as error:  # whatever it was, it is raised where the search goes on
            with self._changed:
                self._failure = error
                self._changed.notify_all()

    def _next(self) -> tuple[Operation, bool] | None:
        """The first operation that is not sent, once there is one; None when the outbox is closed."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._closed or (self._pending and self._n_sent < self._n_released)
            )
            return None if self._closed else self._pending[0]

    def _deliver(self, operation: Operation, doubtful: bool) -> None:
        """Send an operation, again and again until it is answered or the outbox is closed."""
        delay = _FIRST_DELAY
        while not self._closed:
            try:
                note = self._send(operation, doubtful)
            except ConnectionError as error:
                doubtful = True
                self.away = error
                self._tell_away()
                with self._changed:
                    if self._hurry:
                        self._changed.wait_for(lambda: self._closed, _HURRIED_DELAY)
                    else:
                        self._changed.wait_for(lambda: self._closed or self._hurry, delay)
                delay = min(2 * delay, _LONGEST_DELAY)
            except StartOver:
                self._start_over()
                return
            else:
                self._mark_sent(note)
                return

    def _start_over(self) -> None:
        told = "MLflow at %s lacks runs of this study: they are made anew from %s."
        _log.warning(told, self._place, self._path)
        with self._changed:
            append_entries(self._path, {"sent": 0})
            self._pending = deque((entry.operation, True) for entry in read_outbox(self._path))
            self._n_sent = 0
            self._answered = time.monotonic()

    def _mark_sent(self, note: Note) -> None:
        with self._changed:
            append_entries(self._path, {"sent": self._n_sent + 1, **note})
            self._n_sent += 1
            self._pending.popleft()
            self.away = None
            self._answered = time.monotonic()
            self._changed.notify_all()

    def _tell_away(self) -> None:
        if not self._warned:
            self._warned = True
            told = "MLflow at %s %s (%s): the search goes on, and what is not sent is kept in %s."
            _log.warning(told, self._place, self._fault(), self.away, self._path)

    def _fault(self) -> str:
        full = self.away is not None and disk_full_reason(self.away) is not None
        return "has no room left on its disk" if full else "does not answer"

    def _check(self) -> None:
        if isinstance(self._failure, OSError):
            raise self._failure
        if self._failure is not None:
            raise RuntimeError(
                f"{self._path}: sending to MLflow came to an end."
            ) from self._failure
