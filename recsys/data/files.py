"""One file of a source, wherever it lies: plain, gzip, or a member of a zip, which is read in place and never extracted."""

import gzip
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, cast

_HEAD_BYTES = 1 << 18
_DAMAGE = (EOFError, zlib.error, gzip.BadGzipFile, zipfile.BadZipFile)


@dataclass(frozen=True)
class DataFile:
    """A file by path, or a member of the zip at that path. `label`: what errors call it."""

    path: str
    member: str | None = None

    @property
    def label(self) -> str:
        """The file's name, behind its archive's where it is a member."""
        name = Path(self.path).name
        return name if self.member is None else f"{name}/{self.member}"

    @property
    def name(self) -> str:
        """The last part of the file's own name."""
        return Path(self.path).name if self.member is None else PurePosixPath(self.member).name


@contextmanager
def open_raw(path: str | Path) -> Iterator[IO[bytes]]:
    """Open a file's bytes as they lie on the disk.

    Raises:
        PermissionError: if the file may not be read.
    """
    try:
        stream = Path(path).open("rb")  # noqa: SIM115  (the block of the caller must stay outside of this try)
    except PermissionError:
        raise PermissionError(f"{path}: must be readable, but permission is denied. Change its permissions.") from None
    with stream:
        yield stream


@contextmanager
def open_file(file: DataFile) -> Iterator[IO[bytes]]:
    """Open a file's content, uncompressed.

    Raises:
        PermissionError: if the file may not be read.
        ValueError: if the gzip or zip around it is damaged, also while it is read inside the block.
    """
    kind = "zip" if file.member is not None else "gzip"
    try:
        with open_raw(file.path) as raw:
            if file.member is not None:
                with zipfile.ZipFile(raw) as archive, archive.open(file.member) as member, _unpacked(member) as stream:
                    yield stream
            else:
                with _unpacked(raw) as stream:
                    yield stream
    except _DAMAGE as error:
        raise ValueError(
            f"{file.label}: must be a whole {kind} file, but it is cut off or damaged ({error}). Copy or download it again."
        ) from None


@contextmanager
def _unpacked(stream: IO[bytes]) -> Iterator[IO[bytes]]:
    compressed = stream.read(2) == b"\x1f\x8b"
    stream.seek(0)
    if not compressed:
        yield stream
        return
    with gzip.GzipFile(fileobj=stream) as unpacked:
        yield cast(IO[bytes], unpacked)


def read_head(file: DataFile) -> bytes:
    """The first bytes of the content, up to the last line end among them where there is more."""
    with open_file(file) as stream:
        head = stream.read(_HEAD_BYTES)
    return head[: head.rfind(b"\n") + 1] or head if len(head) == _HEAD_BYTES else head


def is_plain(file: DataFile) -> bool:
    """Whether a part of the content can be read without what lies before it."""
    if file.member is not None:
        return False
    with open_raw(file.path) as raw:
        return raw.read(2) != b"\x1f\x8b"


def archive_members(path: Path) -> list[str]:
    """The files in a zip, by name.

    Raises:
        ValueError: if the zip is damaged, or a member's name leads out of the archive's own folder.
    """
    try:
        with open_raw(path) as raw, zipfile.ZipFile(raw) as archive:
            names = [info.filename for info in archive.infolist() if not info.is_dir()]
    except _DAMAGE as error:
        raise ValueError(
            f"{path.name}: must be a whole zip file, but it is cut off or damaged ({error}). Copy or download it again."
        ) from None
    for name in names:
        parts = PurePosixPath(name.replace("\\", "/")).parts
        if ".." in parts or name.startswith(("/", "\\")) or any(":" in part for part in parts[:1]):
            raise ValueError(f"{path.name}: members must lie inside the archive, but got {name!r}. Do not trust this file.")
    return names
