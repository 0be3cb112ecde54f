"""Files and folders that appear whole or not at all, and what one process at a time may do.

The ground floor. Everything that outlives a process is written beside its place and renamed into it, so that a crash, a full
disk or an interrupt leaves the old content or none, never half of the new.
"""

import fcntl
import os
import platform
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recsys.errors import InputError
from recsys.storage.s3 import remove_folder, upload, url_of


@contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """Yield a temporary file name beside `path`; what was written there replaces `path` when the block ends well.

    The parent folder is made. When the block raises, the temporary file is removed and `path` stays as it was. A path that
    stands for one in S3 is published there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _sibling(path)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())  # a power cut may else keep the new name without the content
        temporary.replace(path)
        upload(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def temporary_sibling(path: Path) -> Iterator[Path]:
    """Yield a new empty folder beside `path`, removed when the block ends unless it was moved away."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _sibling(path)
    temporary.mkdir()
    try:
        yield temporary
    finally:
        remove_folder(temporary)


def replace_folder(temporary: Path, path: Path) -> None:
    """Rename a folder to `path`, in the place of a folder that stands there."""
    try:
        temporary.rename(path)
    except OSError:
        # A rename never replaces a folder with content: step the old one aside first.
        old = _sibling(path)
        path.rename(old)
        temporary.rename(path)
        shutil.rmtree(old, ignore_errors=True)


@contextmanager
def write_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; it takes the place of `path` when the block ends well."""
    with temporary_sibling(path) as temporary:
        yield temporary
        replace_folder(temporary, path)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Report a file or folder that the block may not read, `path` or one that the error names.

    Raises:
        InputError: if there is one.
    """
    try:
        yield
    except PermissionError as error:
        place = error.filename or path
        raise InputError(
            place,
            "must be readable",
            found=f"got: {error.strerror}",
            remedy="Change its permissions.",
        ) from None


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Wait until no other process runs such a block for `path`; a process that dies in its own ends it."""
    with path.with_name(f".{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def require_on_this_node(folder: Path) -> None:
    """Check that this node sees a folder that the driver has made. One in S3 is seen from everywhere.

    Raises:
        InputError: if it does not.
    """
    if url_of(folder) is None and not folder.is_dir():
        raise InputError(
            "folder",
            "must be a folder that all nodes see",
            f"{folder}, which is not on {platform.node()}",
            "Give a shared folder or s3://BUCKET/PREFIX.",
        )


_NETWORK_FILE_SYSTEMS = re.compile(
    r"nfs\d*|cifs|smb\w*|9p|afs|ceph|gluster\w*|lustre|gpfs|beegfs\w*|fuse\..*"
)
_MOUNTS = Path("/proc/self/mountinfo")


def network_file_system(path: Path) -> str | None:
    """The kind of network file system that a path lies on, None where it is on a disk of this machine."""
    if not _MOUNTS.exists():
        return None
    place, longest, kind = path.resolve(), -1, ""
    for line in _MOUNTS.read_text(encoding="utf-8").splitlines():
        mount, _, source = line.partition(" - ")
        point = Path(mount.split()[4].encode().decode("unicode_escape"))
        if (
            place.is_relative_to(point) and len(point.parts) >= longest
        ):  # of mounts at one place the last counts
            longest, kind = len(point.parts), source.split()[0]
    return kind if _NETWORK_FILE_SYSTEMS.fullmatch(kind) else None


def _sibling(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp")
