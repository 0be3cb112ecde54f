"""The places of the machine that a command depends on, and the line that names one which refused it.

The ground floor, below `command_line`. Any library may be the one that finds a full disk or a folder that cannot be written.
"""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from recsys.errors import InputError
from recsys.storage.files import disk_full_reason

_FULL = (errno.ENOSPC, errno.EDQUOT)
_CLOSED = (errno.EACCES, errno.EPERM, errno.EROFS)
_ROOM = 1 << 20
"""Bytes that a temporary folder must take for Ray to start."""


def refusal(error: BaseException, folder: Path | None) -> tuple[str, int] | None:
    """The place that refused to be used, the rule and the remedy in one line, and the exit code; None if none did.

    Args:
        error: what ended a command.
        folder: the command's `--dir`.
    """
    if (reason := disk_full_reason(error)) is not None:
        if isinstance(error, InputError):  # it names the place itself
            return str(error), 1
        return (
            f"{_full_place(error, folder)}: must have room to be written, but got {reason}. Free some.",
            1,
        )
    for found in _chain(error):
        if (
            isinstance(found, OSError)
            and found.errno in _CLOSED
            and isinstance(found.filename, str)
        ):
            remedy = _remedy(Path(found.filename), folder)
            return (
                f"{found.filename}: must be a place that can be written, but got {found.strerror}. {remedy}",
                2,
            )
    return None


def require_writable(folder: Path) -> None:
    """Check that a folder can be written, or made.

    Raises:
        InputError: if it cannot.
    """
    place = _nearest(folder)
    if not os.access(place, os.W_OK | os.X_OK):
        raise InputError(
            "--dir",
            "must be a folder that can be written",
            f"{folder}, which cannot",
            "Give another one.",
        )


def temporary_folders() -> list[Path]:
    """Where Ray writes, then where other libraries do."""
    names = ("RAY_TMPDIR", "TMPDIR")
    return [*(Path(os.environ[name]) for name in names if os.environ.get(name)), Path("/tmp")]


def require_temporary_folder() -> None:
    """Check that the folder in which Ray starts, by RAY_TMPDIR or TMPDIR, can be written and has some room.

    Raises:
        OSError: naming the folder, if it cannot or has none.
    """
    folder = temporary_folders()[0]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(_ROOM))
            file.flush()
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(folder)) from None


def _full_place(error: BaseException, folder: Path | None) -> Path:
    """The place that has no room left: the one that the error names, or the one with the least room."""
    places = [*([] if folder is None else [folder]), *temporary_folders()]
    for found in _chain(error):
        if isinstance(found, OSError) and found.errno in _FULL and isinstance(found.filename, str):
            return next(
                (
                    place
                    for place in places
                    if Path(found.filename).absolute().is_relative_to(place.absolute())
                ),
                Path(found.filename),
            )
    return min(places, key=lambda place: shutil.disk_usage(_nearest(place)).free)


def _remedy(place: Path, folder: Path | None) -> str:
    """What to do about a place that cannot be written, by the setting that it comes from."""
    remedies = dict.fromkeys(temporary_folders(), "Set TMPDIR to a folder that can be written.")
    if home := os.environ.get("HOME"):
        remedies[Path(home)] = "Set HOME to a folder that can be written."
    if folder is not None:
        remedies[folder] = "Give another --dir, or see to its permissions."
    above = [path for path in remedies if place.absolute().is_relative_to(path.absolute())]
    return (
        remedies[max(above, key=lambda path: len(path.absolute().parts))]
        if above
        else "See to its permissions."
    )


def _nearest(place: Path) -> Path:
    """A place, or the nearest folder above it that is there."""
    return next(path for path in (place.absolute(), *place.absolute().parents) if path.exists())


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and what it came from."""
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or found.__context__
