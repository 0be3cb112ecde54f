"""Uploads of a study's growing files to S3: the record's journal and the outbox.

The search appends to both files on disk; a thread uploads them whole every few seconds. The order
of uploads keeps any state of S3 resumable: the outbox in S3 is never ahead of the record, MLflow
never ahead of the uploaded outbox, and a superseded checkpoint is deleted after the record that
supersedes it is uploaded. If the driver's machine is lost, at most `INTERVAL_SECONDS` and the time
of one upload are lost.
"""

import logging
import shutil
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, Self

from recsys.search.record.optuna_storage import JOURNAL
from recsys.storage.s3 import upload, url_of
from recsys.tracking.study_runs import OUTBOX

INTERVAL_SECONDS = 4.0
_log = logging.getLogger(__name__)


class HeldOutbox(Protocol):
    """Queue of MLflow operations, in order, none of which is sent before it is released."""

    @property
    def n_kept(self) -> int:
        """Number of operations in the file."""

    def release(self, n: int) -> None:
        """Allow the first `n` operations to be sent."""


class Uploads:
    """Uploads every few seconds while a block runs, and at its end.

    There are none for a folder on disk, and none once the lease of the study `is_lost`.
    """

    def __init__(self, folder: Path, outbox: HeldOutbox, is_lost: threading.Event) -> None:
        self._folder = folder
        self._outbox = outbox
        self._is_lost = is_lost
        self._actions: deque[Callable[[], None]] = deque()
        self._uploaded_sizes: dict[str, int] = {}
        self._upload_lock = threading.Lock()
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
            self.upload()

    def after_next(self, action: Callable[[], None]) -> None:
        """Call `action` after the record as it is now is uploaded; at once for a study on disk.

        An action that raises is called again after the upload that follows.
        """
        if self._is_local:
            action()
        else:
            self._actions.append(action)

    def upload(self) -> None:
        """Upload both files if they have grown, release the outbox and call the actions.

        Raises:
            OSError: if S3 cannot be reached.
        """
        if self._is_local or self._is_lost.is_set():
            return
        with self._upload_lock:
            n_actions, n_kept = len(self._actions), self._outbox.n_kept
            # The outbox is copied first, so that the copied record is not older.
            outbox, record = self._copy(OUTBOX), self._copy(JOURNAL)
            self._upload_if_grown(JOURNAL, record)
            self._upload_if_grown(OUTBOX, outbox)
            self._outbox.release(n_kept)
            for _ in range(n_actions):
                self._actions[0]()
                self._actions.popleft()

    def _copy(self, name: str) -> Path:
        """Copy a file as it is now. If its last line is incomplete, resuming cuts it off."""
        file, copy = self._folder / name, self._folder / f".{name}.upload"
        if file.exists():
            shutil.copyfile(file, copy)
        return copy

    def _upload_if_grown(self, name: str, content: Path) -> None:
        size = content.stat().st_size if content.exists() else 0
        if size != self._uploaded_sizes.get(name, 0):
            upload(self._folder / name, content)
            self._uploaded_sizes[name] = size

    def _run(self) -> None:
        warned = False
        while not self._ended.wait(INTERVAL_SECONDS):
            try:
                self.upload()
                warned = False
            except OSError as error:
                if not warned:
                    _log.warning(
                        "%s cannot be reached (%s): the search runs on, and uploads are retried.",
                        self._folder,
                        error,
                    )
                warned = True
