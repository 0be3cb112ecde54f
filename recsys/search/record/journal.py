"""The record as a file of lines that are only ever added, for folders that SQLite must not lie in.

Stands below `study_storage`. On a network file system it lies in its place; of a folder in S3 it is a local copy that `uploads`
puts there as it grows. The driver alone writes it, under the lease of the study.
"""

from pathlib import Path

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from recsys.errors import InputError


def open_journal(path: Path) -> JournalStorage:
    """The storage in a file, which is made where there is none.

    Raises:
        InputError: if the file is damaged.
    """
    try:
        return JournalStorage(JournalFileBackend(str(path)))
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            path,
            "must be a whole journal of Optuna's",
            found=f"it is damaged ({' '.join(str(error).split())})",
            remedy="Bring it back from a copy, or search under another --name.",
        ) from None


def take_over(path: Path) -> None:
    """Take away what a process that was lost has left: Optuna's lock, and a last line that is not whole."""
    path.with_name(f"{path.name}.lock").unlink(missing_ok=True)
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        # More lines behind it would make the journal unreadable.
        with path.open("r+b") as file:
            file.truncate(whole)
