"""Reader of text files: CSV, TSV and files separated by `::`.

A fragment is a range of bytes, or the whole file if only a reader from its start finds the rows.
"""

import io
from collections.abc import Generator, Iterator
from contextlib import closing
from typing import IO

from recsys.config.sections import ColumnsConfig
from recsys.data.readers.columns import Column
from recsys.data.readers.fragments import Batch, FileStructure, Fragment, Range
from recsys.data.readers.text_dialect import Dialect, detect_dialect
from recsys.data.readers.text_errors import find_error
from recsys.data.readers.text_parsing import parse_chunk
from recsys.data.readers.text_rows import MAX_ROW_BYTES, read_chunks, read_line, too_long
from recsys.data.sources.files import DataFile, is_plain, open_file, open_raw

CHUNK_BYTES = 1 << 25
"""Text that is parsed at a time, and the size of a fragment."""

DIALECT_BYTES = 1 << 18
"""Text in which the dialect is detected; more if this holds no whole row."""

_SCAN_BYTES = 1 << 20


def recognises(_: bytes) -> bool:
    """Return True: a file that no other format recognises is read as text."""
    return True


def inspect(file: DataFile, columns: ColumnsConfig | None) -> FileStructure:
    """Return the columns and the dialect of a file, and ranges of its bytes.

    Raises:
        InputError: if the head of the file is not text of a known dialect, or has too long rows.
    """
    dialect, found = _dialect_of(file, columns)
    start, first_row = dialect.data_start, dialect.first_row
    size = _size_in_lines(file, dialect) if is_plain(file) else None
    if size is None:
        ranges = [Range(start, None, first_row)]
    else:
        ranges = [
            Range(offset, min(offset + CHUNK_BYTES, size), first_row)
            for offset in range(start, size, CHUNK_BYTES)
        ]
    return FileStructure(found, ranges, dialect)


def read(fragment: Fragment, threshold: float | None) -> Iterator[Batch]:
    """Yield the rows of a fragment in batches.

    A rating of at least `threshold` is a positive; if it is None, every row is.

    Raises:
        InputError: if a row breaks a rule: the first such row, by file, line and column.
    """
    dialect = fragment.dialect
    assert dialect is not None
    order = fragment.first_order
    with closing(_chunks(fragment, dialect)) as chunks:
        for chunk, line in chunks:
            batch = parse_chunk(chunk, dialect, fragment.columns, threshold, order)
            if batch is None:
                first_line = line if line is not None else _first_line(fragment, dialect)
                raise find_error(chunk, first_line, fragment.file.label, dialect, fragment.columns)
            order += len(batch.order)
            yield batch


def _dialect_of(file: DataFile, columns: ColumnsConfig | None) -> tuple[Dialect, dict[str, Column]]:
    n_bytes = DIALECT_BYTES
    while True:
        with open_file(file) as stream:
            head = stream.read(n_bytes)
        found = detect_dialect(head, len(head) < n_bytes, columns, file.label)
        if found is not None:
            return found
        if n_bytes >= MAX_ROW_BYTES:
            raise too_long(f"{file.label}, first rows")
        n_bytes *= 4


def _size_in_lines(file: DataFile, dialect: Dialect) -> int | None:
    """Return the size of a file whose rows are its lines; None if a quoted row may span lines."""
    with open_raw(file.path) as stream:
        size = stream.seek(0, io.SEEK_END)
        stream.seek(dialect.data_start)
        quoted = dialect.quoting is not None and any(
            b'"' in block for block in iter(lambda: stream.read(_SCAN_BYTES), b"")
        )
    return None if quoted else size


def _chunks(fragment: Fragment, dialect: Dialect) -> Generator[tuple[bytes, int | None]]:
    """Yield whole rows in chunks, each with the number of its first line, None if unknown."""
    label, (start, stop, first_row) = fragment.file.label, fragment.range
    with open_file(fragment.file) as stream:
        if stop is None:
            stream.read(start)
            yield from read_chunks(stream, CHUNK_BYTES, dialect.quoting, label, first_row)
            return
        _seek_line(stream, fragment, dialect)
        chunk = stream.read(max(stop - stream.tell(), 0))
        if chunk and not chunk.endswith(b"\n"):
            chunk += read_line(stream, label)
        if chunk.strip():
            yield chunk, None


def _seek_line(stream: IO[bytes], fragment: Fragment, dialect: Dialect) -> None:
    """Move the stream to the first line that starts in the fragment."""
    start = fragment.range.start
    if start == dialect.data_start:
        stream.seek(start)
    else:
        # A line that starts at `start` follows a line end at `start - 1`.
        stream.seek(start - 1)
        read_line(stream, fragment.file.label)


def _first_line(fragment: Fragment, dialect: Dialect) -> int:
    """Return the number of the fragment's first line, by counting those before: for errors only."""
    with open_file(fragment.file) as stream:
        _seek_line(stream, fragment, dialect)
        end = stream.tell()
        stream.seek(0)
        line, left = 1, end
        while left and (data := stream.read(min(left, CHUNK_BYTES))):
            line += data.count(b"\n")
            left -= len(data)
    return line
