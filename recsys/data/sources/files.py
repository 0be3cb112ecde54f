"""Files of a data set: plain files, gzip files, and members of zip archives.

All are opened as uncompressed streams. Archives are read in place and never extracted.
"""

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
"""Errors of reading damaged compressed bytes; those of gzip and bzip2 are OSErrors."""

MAX_RATIO = 200
"""Bytes that a byte of an archive may unpack to.

Ratings unpack to about 4, rows that repeat long texts to about 50.
"""

ALWAYS_ALLOWED_BYTES = 1 << 28
"""Bytes to which any archive may unpack, whatever the ratio."""


@dataclass(frozen=True)
class DataFile:
    """A file by path, or a member of the zip at that path."""

    path: str
    member: str | None = None

    @property
    def label(self) -> str:
        """The name for error messages: the file's, after its archive's if it is a member."""
        name = Path(self.path).name
        return name if self.member is None else f"{name}/{self.member}"

    @property
    def name(self) -> str:
        """The file's own name, without folders."""
        return Path(self.path).name if self.member is None else PurePosixPath(self.member).name


@contextmanager
def open_raw(path: str | Path) -> Iterator[IO[bytes]]:
    """Open a file without uncompressing it.

    Raises:
        InputError: if the file may not be read.
    """
    try:
        # The caller's block must be outside of this `try`, so `with` is below.
        stream = Path(path).open("rb")  # noqa: SIM115
    except PermissionError:
        raise InputError(
            path, "must be readable", found="permission is denied", remedy="Change its permissions."
        ) from None
    with stream:
        yield stream


@contextmanager
def open_file(file: DataFile) -> Iterator[IO[bytes]]:
    """Open the uncompressed content of a file.

    Raises:
        InputError: if the file may not be read; if its gzip or zip is damaged or unpacks to too
            many bytes, also while the block reads it.
    """
    with open_raw(file.path) as raw, ExitStack() as opened:
        packed, n_packed = raw, Path(file.path).stat().st_size
        if file.member is not None:
            with _zip_damage(file.label):
                archive = opened.enter_context(zipfile.ZipFile(raw))
                member = archive.getinfo(file.member)
                packed = opened.enter_context(archive.open(member))
            # zipfile reads no more bytes than `file_size`.
            n_packed = member.compress_size
            _require_limit(member.file_size, n_packed, file.label)
        try:
            yield opened.enter_context(_unpacked(packed, n_packed, file.label))
        except _DAMAGE as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # of the operating system: the bytes themselves could not be read
            raise _damaged(file.label, "gzip" if file.member is None else "zip", error) from None


@contextmanager
def _zip_damage(label: str) -> Iterator[None]:
    """Turn any error into that of a damaged zip: zipfile raises a dozen kinds for damaged bytes."""
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
    if n_unpacked > max(MAX_RATIO * n_packed, ALWAYS_ALLOWED_BYTES):
        raise InputError(
            label,
            f"must unpack to at most {MAX_RATIO} times its size or {ALWAYS_ALLOWED_BYTES:,} bytes",
            found="unpacks to more",
            remedy="If you trust it, unpack it and pass the file.",
        )


class _Limited(io.RawIOBase):
    """Stream of unpacked bytes that raises an error if they are too many for the packed ones."""

    def __init__(self, stream: gzip.GzipFile, n_packed: int, label: str) -> None:
        self._stream, self._n_packed, self._label = stream, n_packed, label

    def readable(self) -> bool:
        """Return True, for `io.BufferedReader`."""
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        """Fill the buffer with the next bytes and return their number."""
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
    """Return whether a file can be read from the middle: it is neither packed nor in an archive."""
    if file.member is not None:
        return False
    with open_raw(file.path) as raw:
        return raw.read(2) != b"\x1f\x8b"


def archive_members(path: Path) -> list[str]:
    """Return the names of the files in a zip.

    Raises:
        InputError: if the zip is damaged, or the path of a member leads out of the archive.
    """
    with open_raw(path) as raw, _zip_damage(path.name), zipfile.ZipFile(raw) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
    for name in names:
        steps = PurePosixPath(name.replace("\\", "/")).parts
        if ".." in steps or name.startswith(("/", "\\")) or any(":" in step for step in steps[:1]):
            raise InputError(
                path.name,
                "members must be inside the archive",
                f"{name!r}",
                "Do not trust this file.",
            )
    return names
