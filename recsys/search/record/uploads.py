"""What grows in a study's folder in S3, put there as it grows: the record, and what MLflow is told.

Stands beside the search. Both are files that lines are added to, written here and uploaded whole every few seconds, in an order
that any state of S3 can be gone on from: what MLflow is to be told is never ahead of the record, MLflow never ahead of what is
uploaded, and what a checkpoint or an ending makes superfluous goes once the record says so. A driver that is lost with its
machine leaves a study that is `INTERVAL_SECONDS` and one upload old at most.
"""

import logging
import shutil
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, Self

from recsys.search.record.study_storage import JOURNAL
from recsys.storage.s3 import upload, url_of
from recsys.tracking.study_runs import OUTBOX

INTERVAL_SECONDS = 4.0
_log = logging.getLogger(__name__)


class Held(Protocol):
    """What MLflow is told, an operation after the other, none of them before it is released."""

    @property
    def n_kept(self) -> int:
        """Operations that are in the file."""

    def release(self, n: int) -> None:
        """Let the first `n` operations be sent."""


class Uploads:
    """Uploads from time to time while a block runs, and at its end. Of a folder on disk there is nothing to upload."""

    def __init__(self, folder: Path, outbox: Held) -> None:
        self._folder = folder
        self._outbox = outbox
        self._waiting: deque[Callable[[], None]] = deque()
        self._uploaded: dict[str, int] = {}
        self._turn = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="uploads", daemon=True)
        self._is_local = url_of(folder) is None

    def __enter__(self) -> Self:
        if not self._is_local:
            self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        if not self._is_local:
            self._ended.set()
            self._thread.join()
            self.now()

    def after_next(self, action: Callable[[], None]) -> None:
        """Do something once the record in S3 says all that it says here by now: at once where it lies on disk."""
        if self._is_local:
            action()
        else:
            self._waiting.append(action)

    def now(self) -> None:
        """Upload what has grown.

        Raises:
            OSError: if S3 cannot be reached.
        """
        if self._is_local:
            return
        with self._turn:
            n_waiting, n_kept = len(self._waiting), self._outbox.n_kept
            outbox, record = (
                self._copy(OUTBOX),
                self._copy(JOURNAL),
            )  # at one time, the record no older
            self._upload(JOURNAL, record)
            self._upload(OUTBOX, outbox)
            self._outbox.release(n_kept)
            for _ in range(n_waiting):
                self._waiting[0]()
                self._waiting.popleft()

    def _copy(self, name: str) -> Path:
        """A file as it is now; a last line that is half written is cut off by who goes on from it."""
        file, copy = self._folder / name, self._folder / f".{name}.upload"
        if file.exists():
            shutil.copyfile(file, copy)
        return copy

    def _upload(self, name: str, content: Path) -> None:
        """Upload a file if there is one that has grown."""
        size = content.stat().st_size if content.exists() else 0
        if size != self._uploaded.get(name, 0):
            upload(self._folder / name, content)
            self._uploaded[name] = size

    def _run(self) -> None:
        warned = False
        while not self._ended.wait(INTERVAL_SECONDS):
            try:
                self.now()
                warned = False
            except OSError as error:
                if not warned:
                    _log.warning(
                        "%s cannot be reached (%s): the search goes on, and what it writes waits.",
                        self._folder,
                        error,
                    )
                warned = True
