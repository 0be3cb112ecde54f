"""The file of an outbox: JSON lines that are only ever added, so that a killed process leaves all but perhaps a torn last line.

A line is an operation, or says that the first `sent` operations are sent and what the last of them came to. `sent` is 0 where
MLflow lost what it was sent, and all is to be sent again.
"""

import errno
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recsys.errors import InputError

Operation = dict[str, Any]
Note = dict[str, Any]


@dataclass(frozen=True)
class Kept:
    """An operation that a file holds.

    `note`: of the last time that it was sent, None if it never was. `sent`: whether it need not be sent again.
    """

    operation: Operation
    note: Note | None
    sent: bool


def read_outbox(path: Path) -> list[Kept]:
    """What an outbox holds, in order; a torn last line is cut off the file. Empty if there is no file.

    Raises:
        InputError: if another line is no JSON object.
    """
    if not path.exists():
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        with path.open("r+b") as file:
            file.truncate(len(whole))
    operations: list[Operation] = []
    notes: dict[int, Note] = {}
    n_sent = 0
    for number, line in enumerate(whole.splitlines(), start=1):
        try:
            entry = json.loads(line)
        except ValueError:
            raise InputError(
                f"{path}, line {number}",
                "must be a JSON object",
                f"{line[:60]!r}",
                "Mend the line, or move the file away to go on without what it holds.",
            ) from None
        if "sent" in entry:
            n_sent = entry["sent"]
            notes[n_sent] = entry
        else:
            operations.append(entry)
    return [
        Kept(operation, notes.get(n), n <= n_sent)
        for n, operation in enumerate(operations, start=1)
    ]


def append_entries(path: Path, *entries: Operation | Note) -> None:
    """Append entries to the file of an outbox, all or none of them.

    Raises:
        OSError: if they cannot be written.
    """
    lines = b"".join(json.dumps(entry).encode() + b"\n" for entry in entries)
    written, reason = 0, os.strerror(errno.ENOSPC)
    with path.open("ab", buffering=0) as file:
        size = file.tell()
        try:
            written = file.write(lines)
        except OSError as error:
            reason = str(error.strerror)
        if written != len(lines):
            # A torn line may only be the last, and more are to follow once there is room.
            file.truncate(size)
            raise OSError(
                f"{path}: must be written whole, but got {reason}. Make room on its disk."
            )
