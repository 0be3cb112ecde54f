"""Errors about paths: a full disk, and a missing permission.

Any library may be the first to find one, so the commands ask this module about each error that ends
them. Folders are checked here too, before work begins that would fail late.
"""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from recsys.errors import Argument, InputError

_FULL = (errno.ENOSPC, errno.EDQUOT)
_FULL_TEXTS = ("No space left on device", "Disk quota exceeded", "database or disk is full")
"""Messages about a full disk in errors that have no number: those of safetensors and SQLite."""
_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG)
_RAY_START_BYTES = 1 << 20
"""Free space in the temporary folder without which Ray does not start."""


def permission_error(error: BaseException, paths: Mapping[str, Path]) -> InputError | None:
    """Return the user's mistake if a path that the user chose may not be used, else None.

    The user chooses paths by flags, HOME and TMPDIR; any other path is a bug. Only the error and
    its explicit causes count: an error that happened while a `PermissionError` was being handled is
    a bug of its own.

    Args:
        error: the error that ended a command.
        paths: flag of the command -> path that it set.
    """
    found: BaseException | None = error
    while found is not None:
        if (
            isinstance(found, OSError)
            and found.errno in _DENIED
            and isinstance(found.filename, str)
            and (remedy := _permission_remedy(Path(found.filename), paths)) is not None
        ):
            return InputError(found.filename, "must be accessible", found.strerror, remedy)
        found = found.__cause__
    return None


def disk_full_reason(error: BaseException) -> str | None:
    """Return the message about a full disk in an error or its causes, None if there is none.

    The first cause comes first: later errors may repeat its message among other words.
    """
    for found in reversed(list(_chain(error))):
        if isinstance(found, OSError) and found.errno in _FULL:
            return str(found)
        for line in str(found).splitlines():
            if any(text in line for text in _FULL_TEXTS):
                return line
    return None


def disk_full_line(error: BaseException, folder: Path | None) -> str | None:
    """Return one line that names the full disk, None if the error is not about one.

    Args:
        error: the error that ended a command.
        folder: the folder of the command's data, studies and models.
    """
    if (reason := disk_full_reason(error)) is None:
        return None
    if isinstance(error, InputError):  # it names the place itself
        return str(error)
    full = _full_path(error, folder)
    return f"{full}: must have room to be written, but got {reason}. Free some."


def require_writable(folder: Path) -> None:
    """Check that a folder can be written, or created.

    Raises:
        InputError: if it cannot.
    """
    nearest = _nearest_existing(folder)
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        reason = "which cannot" if nearest.is_dir() else f"where {nearest} is a file"
        raise InputError(
            Argument("folder"),
            "must be a folder that can be written",
            f"{folder}, {reason}",
            "Give another one.",
        )


def temporary_folders() -> list[Path]:
    """Return the folder for Ray's temporary files, then those of other libraries."""
    names = ("RAY_TMPDIR", "TMPDIR")
    return [*(Path(os.environ[name]) for name in names if os.environ.get(name)), Path("/tmp")]


def require_temporary_folder() -> None:
    """Check that Ray's temporary folder can be written and has room for Ray to start.

    Raises:
        OSError: naming the folder, if it cannot be written or has no room.
    """
    folder = temporary_folders()[0]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(_RAY_START_BYTES))
            file.flush()
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(folder)) from None


def _full_path(error: BaseException, folder: Path | None) -> Path:
    """Return the full folder: the one that the error names, else the one with the least room."""
    folders = [*([] if folder is None else [folder]), *temporary_folders()]
    for found in _chain(error):
        if isinstance(found, OSError) and found.errno in _FULL and isinstance(found.filename, str):
            path = Path(found.filename)
            return next((above for above in folders if _is_below(path, above)), path)
    return min(folders, key=lambda path: shutil.disk_usage(_nearest_existing(path)).free)


def _permission_remedy(path: Path, paths: Mapping[str, Path]) -> str | None:
    """Return the remedy for a denied path, by the setting that chose the nearest folder above.

    None if no setting chose one.
    """
    remedies = dict.fromkeys(temporary_folders(), "Set TMPDIR to a folder that can be written.")
    for name in ("RAY_TMPDIR", "HOME"):
        if chosen := os.environ.get(name):
            remedies[Path(chosen)] = f"Set {name} to a folder that can be written."
    for flag, given in paths.items():
        remedies[given] = f"Give another {flag}, or change its permissions."
    above = [folder for folder in remedies if _is_below(path, folder)]
    if not above:
        return None
    return remedies[max(above, key=lambda folder: len(folder.absolute().parts))]


def _is_below(path: Path, folder: Path) -> bool:
    return path.absolute().is_relative_to(folder.absolute())


def _nearest_existing(path: Path) -> Path:
    """Return the path, or the nearest existing folder above it."""
    absolute = path.absolute()
    return next(found for found in (absolute, *absolute.parents) if found.exists())


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, then each error that led to it."""
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or found.__context__
