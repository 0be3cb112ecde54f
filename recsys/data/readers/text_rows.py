"""Rows of text files as Python's `csv` cuts them: a quote opens a field only where the field starts, and a row may span lines.

Stands below the readers of text: bytes into chunks of whole rows, text into fields.
"""

import csv
import io
import re
from collections.abc import Iterator
from functools import cache
from typing import IO

import numpy as np

from recsys.errors import InputError

# Rows are cut here in chunks of bytes: a field of any length in them is a field.
csv.field_size_limit(2**31 - 1)

MAX_ROW_BYTES = 1 << 24
"""Bytes that a row may always have; one of which more must be held in memory than this is refused."""


def too_long(place: str) -> InputError:
    """The error of a row beyond the limit."""
    return InputError(
        place,
        f"rows must be at most {MAX_ROW_BYTES:,} bytes long",
        found="one is longer",
        remedy="Look for missing line ends, or for a stray quote.",
    )


def read_line(stream: IO[bytes], label: str) -> bytes:
    """The rest of a line that is a row.

    Raises:
        InputError: if it is too long.
    """
    line = stream.readline(MAX_ROW_BYTES + 1)
    if len(line) > MAX_ROW_BYTES:
        raise too_long(f"{label}, byte {stream.tell():,}")
    return line


def read_chunks(
    stream: IO[bytes], n_bytes: int, quoting: str | None, label: str, first_line: int
) -> Iterator[tuple[bytes, int]]:
    """Whole rows in chunks of about `n_bytes`, each chunk with the number of its first line; blank chunks are left out.

    `quoting`: separator of a file whose fields may stand in quotes, None where a quote is a character like any other.

    Raises:
        InputError: if the file ends within quotes, or a row is too long.
    """
    line, rest = first_line, b""
    while data := stream.read(n_bytes):
        data = rest + data
        end = _last_row_end(data, quoting)
        if data[:end].strip():
            yield data[:end], line
        line += data.count(b"\n", 0, end)
        rest = data[end:]
        if len(rest) > MAX_ROW_BYTES:
            raise too_long(f"{label}, row {line}")
    if _last_row_end(rest + b"\n", quoting) <= len(rest):
        raise InputError(
            f"{label}, row {line}",
            "must close its quote",
            found="the file ends within it",
            remedy="Look for a stray quote.",
        )
    if rest.strip():
        yield rest, line


def read_rows(text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """The fields of each row that is not empty, with the number of lines before it; nothing is quoted where `::` separates."""
    if separator == "::":
        yield from split_lines(text, separator)
        return
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    start = 0
    for fields in rows:
        if fields:
            yield start, fields
        start = rows.line_num


def split_lines(text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """The fields of each line that is not empty, with the number of lines before it; a quote is a character like any other."""
    lines = (line.rstrip("\r\n") for line in io.StringIO(text, newline=""))
    return ((n, line.split(separator)) for n, line in enumerate(lines) if line)


def _last_row_end(data: bytes, quoting: str | None) -> int:
    """Bytes up to and with the last row that ends in the data, which start with a row."""
    if quoting is None or b'"' not in data:
        return data.rfind(b"\n") + 1
    text = np.frombuffer(data, np.uint8)
    quotes = np.flatnonzero(text == ord('"'))
    # Where every other quote starts a field, or doubles the one before it, quotes open and close by turns.
    opening = quotes[::2]
    regular = np.isin(text[opening - 1], list(b'\r\n"' + quoting.encode())) | (opening == 0)
    if not regular.all():
        match = _rows_pattern(quoting).match(data)
        return match.end() if match is not None else 0
    ends = np.flatnonzero(text == ord("\n"))
    outside = ends[np.searchsorted(quotes, ends) % 2 == 0]
    return int(outside[-1]) + 1 if len(outside) else 0


@cache
def _rows_pattern(separator: str) -> re.Pattern[bytes]:
    """Whole rows, as many as there are; after a closing quote a field goes on as if it had none."""
    s = re.escape(separator.encode())
    field = rb'(?:"[^"]*+(?:""[^"]*+)*+"[^%b\r\n]*+|[^"%b\r\n][^%b\r\n]*+)?' % (s, s, s)
    return re.compile(rb'(?:[^"\n]*+\n|(?:%b%b)*+%b(?:\r\n?|\n))*+' % (field, s, field))
