"""Files and folders that are written whole or not at all, and locks between processes.

Everything that outlives a process is written to a temporary path beside its own and then renamed.
A crash, a full disk or an interrupt therefore leaves the old content or none, never half of a file.
"""

import errno
import fcntl
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recsys.errors import InputError
from recsys.storage.s3 import remove_folder, upload

_NETWORK_FILE_SYSTEMS = re.compile(
    r"nfs\d*|cifs|smb\w*|9p|afs|ceph|gluster\w*|lustre|gpfs|beegfs\w*|fuse\..*"
)
_MOUNTS = Path("/proc/self/mountinfo")


@contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; the file written there replaces `path` at the end.

    The parent folder is created. If the block raises, the temporary file is removed and `path`
    stays unchanged. A path in the local copy of a folder in S3 is uploaded.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _sibling(path)
    try:
        yield temporary
        with temporary.open("rb") as file:
            # Without fsync, a power cut may keep the new name but not the content.
            os.fsync(file.fileno())
        temporary.replace(path)
        upload(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def temporary_sibling(path: Path) -> Iterator[Path]:
    """Yield a new empty folder beside `path`; remove it at the end unless it was moved."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _sibling(path)
    temporary.mkdir()
    try:
        yield temporary
    finally:
        remove_folder(temporary)


def replace_folder(temporary: Path, path: Path) -> None:
    """Rename a folder to `path`; a folder that has this name already is deleted."""
    try:
        temporary.rename(path)
    except OSError:
        # A rename cannot replace a folder with content, so the old folder is renamed first.
        old = _sibling(path)
        path.rename(old)
        temporary.rename(path)
        shutil.rmtree(old, ignore_errors=True)


@contextmanager
def write_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`, which replaces `path` at the end.

    If the block raises, the temporary folder is removed and `path` stays unchanged.
    """
    with temporary_sibling(path) as temporary:
        yield temporary
        replace_folder(temporary, path)


@contextmanager
def require_readable(path: Path) -> Iterator[None]:
    """Turn errors of the block, which reads `path`, into the user's mistake.

    Raises:
        InputError: if a permission is missing or a name is too long; it names the path in the
            error, or `path` if the error has none.
    """
    try:
        yield
    except OSError as error:
        too_long = error.errno == errno.ENAMETOOLONG
        if not too_long and not isinstance(error, PermissionError):
            raise
        raise InputError(
            error.filename or path,
            "must be readable",
            found=f"got: {error.strerror}",
            remedy="Shorten its name." if too_long else "Change its permissions.",
        ) from None


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Hold a lock that one process at a time can hold for `path`; wait for it if necessary.

    The lock is a file beside `path`. The kernel releases it when the process dies.
    """
    with path.with_name(f".{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def network_file_system(path: Path) -> str | None:
    """Return the type of the network file system that holds a path, None for a local disk.

    Source: proc_pid_mountinfo(5); field 5 of a line is the mount point, the field after " - " the
    type.
    """
    if not _MOUNTS.exists():
        return None
    resolved, longest, kind = path.resolve(), -1, ""
    for line in _MOUNTS.read_text(encoding="utf-8").splitlines():
        mount, _, source = line.partition(" - ")
        escaped = mount.split()[4].encode("latin-1", "backslashreplace")
        point = Path(escaped.decode("unicode_escape"))
        # Of several mounts at one point, the last one hides the others: hence >=.
        if resolved.is_relative_to(point) and len(point.parts) >= longest:
            longest, kind = len(point.parts), source.split()[0]
    return kind if _NETWORK_FILE_SYSTEMS.fullmatch(kind) else None


def _sibling(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp")
