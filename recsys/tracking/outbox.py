"""The outbox: a file and a thread that log a search to MLflow later, in order.

The search appends operations and never waits for a request. They are kept in the file
(`outbox_file`) until MLflow has answered, which may be minutes later or after the next start.
"""

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from recsys.storage.path_errors import disk_full_reason
from recsys.tracking.outbox_file import Entry, Note, Operation, append_entries, read_outbox

Send = Callable[[Operation, bool], Note]
"""Function that sends an operation and returns a note on it, which is stored in the file.

The flag says that the operation may have been sent before. Raises `ConnectionError` if the
operation must be sent again later, and `StartOver` if all operations must, from the first.
"""

PATIENCE_SECONDS = 5.0
"""Longest time that `flush` waits for an answer."""
_FIRST_DELAY, _LONGEST_DELAY = 1.0, 30.0
"""Seconds between two attempts; the delay doubles with each."""
_FLUSH_DELAY = 0.25
"""Seconds between two attempts during `flush`."""
_log = logging.getLogger(__name__)


class StartOver(Exception):  # noqa: N818 (the operation has no error)
    """Signal that the receiver has lost operations that were sent before."""


class Outbox:
    """Queue of operations in a file, which a thread sends."""

    def __init__(
        self, path: Path, entries: Sequence[Entry], send: Send, uri: str, *, held: bool = False
    ) -> None:
        """Start the thread.

        Args:
            path: the file, created with the first operation.
            entries: the file's content, from `read_outbox`.
            send: sends one operation.
            uri: names the receiver in warnings.
            held: send no new operation before `release` allows it.
        """
        self._path = path
        self._send = send
        self._uri = uri
        self._pending = deque((entry.operation, True) for entry in entries if not entry.sent)
        self._n_sent = len(entries) - len(self._pending)
        self._n_released = len(entries) if held else math.inf
        self._changed = threading.Condition()
        self._answered = 0.0
        self._flushing = self._closed = self._warned = False
        self.connection_error: ConnectionError | None = None
        """Error of the last attempt, None if it was answered."""
        self._failure: Exception | None = None
        threading.Thread(target=self._run, name="mlflow-outbox", daemon=True).start()

    def append(self, *operations: Operation) -> None:
        """Write operations to the file, all or none, and return; the thread sends them in order.

        Raises:
            OSError: if the file cannot be written.
            RuntimeError: if an unexpected error has ended the thread.
        """
        with self._changed:
            self._check()
            append_entries(self._path, *operations)
            self._pending.extend((operation, False) for operation in operations)
            self._changed.notify_all()

    @property
    def n_kept(self) -> int:
        """Operations in the file, sent or not."""
        with self._changed:
            return self._n_sent + len(self._pending)

    def release(self, n: int) -> None:
        """Let the thread of a held outbox send the first `n` operations."""
        with self._changed:
            self._n_released = max(self._n_released, n)
            self._changed.notify_all()

    def flush(self, limit: float | None = None) -> bool:
        """Wait until all operations are sent, while MLflow answers, for at most `limit` seconds.

        Returns:
            Whether all operations are sent.

        Raises:
            OSError: if the file cannot be written.
            RuntimeError: if an unexpected error has ended the thread.
        """
        with self._changed:
            began = time.monotonic()
            self._flushing = True
            self._changed.notify_all()
            while self._pending and self._failure is None:
                end = max(began, self._answered) + PATIENCE_SECONDS
                left = min(end, began + limit if limit is not None else end) - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            self._flushing = False
            self._check()
            return not self._pending

    def close(self, limit: float | None = None) -> None:
        """Flush, end the thread, and warn of unsent operations, which the next start sends.

        Raises:
            OSError: if the file cannot be written.
            RuntimeError: if an unexpected error has ended the thread.
        """
        done = self.flush(limit)
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            n_pending = len(self._pending)
        if not done:
            warning = (
                "MLflow at %s %s: %d operations are kept in %s; resuming the study sends them."
            )
            _log.warning(warning, self._uri, self._fault(), n_pending, self._path)

    def _run(self) -> None:
        try:
            while (entry := self._next()) is not None:
                self._deliver(*entry)
        except Exception as error:  # any error is raised in the thread of the search
            with self._changed:
                self._failure = error
                self._changed.notify_all()

    def _next(self) -> tuple[Operation, bool] | None:
        """Wait for an operation that may be sent and return it; None once the outbox is closed."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._closed or (self._pending and self._n_sent < self._n_released)
            )
            return None if self._closed else self._pending[0]

    def _deliver(self, operation: Operation, resent: bool) -> None:
        """Send an operation, repeatedly until MLflow answers or the outbox is closed."""
        delay = _FIRST_DELAY
        while not self._closed:
            try:
                note = self._send(operation, resent)
            except ConnectionError as error:
                resent = True
                self.connection_error = error
                self._warn_once()
                with self._changed:
                    if self._flushing:
                        self._changed.wait_for(lambda: self._closed, _FLUSH_DELAY)
                    else:
                        self._changed.wait_for(lambda: self._closed or self._flushing, delay)
                delay = min(2 * delay, _LONGEST_DELAY)
            except StartOver:
                self._start_over()
                return
            else:
                self._mark_sent(note)
                return

    def _start_over(self) -> None:
        warning = "MLflow at %s lacks runs of this study: they are created again from %s."
        _log.warning(warning, self._uri, self._path)
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
            self.connection_error = None
            self._answered = time.monotonic()
            self._changed.notify_all()

    def _warn_once(self) -> None:
        if not self._warned:
            self._warned = True
            warning = (
                "MLflow at %s %s (%s): the search continues, and %s keeps the unsent operations."
            )
            _log.warning(warning, self._uri, self._fault(), self.connection_error, self._path)

    def _fault(self) -> str:
        error = self.connection_error
        full = error is not None and disk_full_reason(error) is not None
        return "has no room left on its disk" if full else "does not answer"

    def _check(self) -> None:
        if isinstance(self._failure, OSError):
            raise self._failure
        if self._failure is not None:
            message = f"{self._path}: sending to MLflow ended with an error."
            raise RuntimeError(message) from self._failure
