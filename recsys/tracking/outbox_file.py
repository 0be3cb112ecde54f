"""The file of an outbox: JSON lines that are only appended.

A killed process loses at most the last line. A line is an operation, or a note that the first
`sent` operations are sent, with the answer to the last one. `sent` is 0 if MLflow has lost runs
and all operations must be sent again.
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
class Entry:
    """Operation in a file.

    Attributes:
        operation: the operation.
        note: the answer when it was last sent, None if it never was.
        sent: it need not be sent again.
    """

    operation: Operation
    note: Note | None
    sent: bool


def read_outbox(path: Path) -> list[Entry]:
    """Read the operations of an outbox, in order; none if the file does not exist.

    Cuts off a last line that a killed process did not finish.

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
                "Correct the line, or move the file away to continue without its operations.",
            ) from None
        if "sent" in entry:
            n_sent = entry["sent"]
            notes[n_sent] = entry
        else:
            operations.append(entry)
    return [
        Entry(operation, notes.get(n), n <= n_sent)
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
            # Only the last line may be incomplete, and more lines follow once the disk has space.
            file.truncate(size)
            raise OSError(
                f"{path}: must be written whole, but got {reason}. Make room on its disk."
            )
