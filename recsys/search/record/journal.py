"""Journal of the record: a file that Optuna only appends to, where SQLite must not be used.

It is the storage of a record on a network file system, and in S3, where it is a local copy that
`uploads` uploads. The driver that holds the study's lease is its only writer.
"""

from pathlib import Path

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from recsys.errors import InputError


def open_journal(path: Path) -> JournalStorage:
    """Return the storage in a file, which is created if there is none.

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
            remedy="Restore it from a copy, or choose another study name.",
        ) from None


def repair_journal(path: Path) -> None:
    """Remove what a killed process left: Optuna's lock, and a last line without its end."""
    path.with_name(f"{path.name}.lock").unlink(missing_ok=True)
    content = path.read_bytes()
    size = content.rfind(b"\n") + 1
    if size < len(content):
        # Lines appended after it would make the journal unreadable.
        with path.open("r+b") as file:
            file.truncate(size)
