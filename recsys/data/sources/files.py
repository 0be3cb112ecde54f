"""One file of a source, wherever it lies: plain, gzip, or a member of a zip, which is read in place and never extracted."""

import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING

from recsys.errors import InputError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_DAMAGE = (EOFError, OSError, zlib.error, lzma.LZMAError, zipfile.BadZipFile)
"""What reading compressed bytes raises, gzip's and bzip2's errors being OSErrors."""

MAX_RATIO = 200
"""Bytes that one byte of an archive may unpack to. Ratings come to about 4, rows that repeat long texts to some 50."""

FREE_BYTES = 1 << 28
"""Bytes that any archive may unpack to."""


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
        InputError: if the file may not be read.
    """
    try:
        stream = Path(path).open("rb")  # noqa: SIM115  (the block of the caller must stay outside of this try)
    except PermissionError:
        raise InputError(
            path, "must be readable", found="permission is denied", remedy="Change its permissions."
        ) from None
    with stream:
        yield stream


@contextmanager
def open_file(file: DataFile) -> Iterator[IO[bytes]]:
    """Open a file's content, uncompressed.

    Raises:
        InputError: if the file may not be read; if the gzip or zip around it is damaged or unpacks to too much, also while it is
            read inside the block.
    """
    with open_raw(file.path) as raw, ExitStack() as opened:
        packed, n_packed = raw, Path(file.path).stat().st_size
        if file.member is not None:
            with _zip_damage(file.label):
                archive = opened.enter_context(zipfile.ZipFile(raw))
                member = archive.getinfo(file.member)
                packed = opened.enter_context(archive.open(member))
            # zipfile gives no more bytes than these.
            n_packed = member.compress_size
            _require_limit(member.file_size, n_packed, file.label)
        try:
            yield opened.enter_context(_unpacked(packed, n_packed, file.label))
        except _DAMAGE as error:
            raise _damaged(file.label, "gzip" if file.member is None else "zip", error) from None


@contextmanager
def _zip_damage(label: str) -> Iterator[None]:
    """Tell whatever goes wrong inside as a damaged zip: zipfile has a dozen kinds of errors for bytes that make no sense."""
    try:
        yield
    except Exception as error:
        raise _damaged(label, "zip", error) from None


def _damaged(label: str, kind: str, error: Exception) -> InputError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return InputError(
        label,
        f"must be a whole {kind} file",
        found=f"it is cut off or damaged ({reason})",
        remedy="Copy or download it again.",
    )


def _require_limit(n_unpacked: int, n_packed: int, label: str) -> None:
    if n_unpacked > max(MAX_RATIO * n_packed, FREE_BYTES):
        raise InputError(
            label,
            f"must unpack to at most {MAX_RATIO} times its size or {FREE_BYTES:,} bytes",
            found="unpacks to more",
            remedy="If you trust it, unpack it and pass the file.",
        )


class _Limited(io.RawIOBase):
    """Unpacked bytes, refused where they become too many for the packed ones."""

    def __init__(self, stream: gzip.GzipFile, n_packed: int, label: str) -> None:
        self._stream, self._n_packed, self._label = stream, n_packed, label

    def readable(self) -> bool:
        """Whether it can be read: `io.BufferedReader` asks."""
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        """Fill the buffer with the next bytes; how many there are."""
        n = self._stream.readinto(buffer)
        _require_limit(self._stream.tell(), self._n_packed, self._label)
        return n


@contextmanager
def _unpacked(stream: IO[bytes], n_packed: int, label: str) -> Iterator[IO[bytes]]:
    compressed = stream.read(2) == b"\x1f\x8b"
    stream.seek(0)
    if not compressed:
        yield stream
        return
    with gzip.GzipFile(fileobj=stream) as unpacked:
        yield io.BufferedReader(_Limited(unpacked, n_packed, label))


def is_plain(file: DataFile) -> bool:
    """Whether a part of the content can be read without what lies before it."""
    if file.member is not None:
        return False
    with open_raw(file.path) as raw:
        return raw.read(2) != b"\x1f\x8b"


def archive_members(path: Path) -> list[str]:
    """The files in a zip, by name.

    Raises:
        InputError: if the zip is damaged, or a member's name leads out of the archive's own folder.
    """
    with open_raw(path) as raw, _zip_damage(path.name), zipfile.ZipFile(raw) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
    for name in names:
        parts = PurePosixPath(name.replace("\\", "/")).parts
        if ".." in parts or name.startswith(("/", "\\")) or any(":" in part for part in parts[:1]):
            raise InputError(
                path.name,
                "members must lie inside the archive",
                f"{name!r}",
                "Do not trust this file.",
            )
    return names
