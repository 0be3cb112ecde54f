"""Rows of text files by the rules of Python's `csv`.

A quote opens a field only at the field's start, and a quoted field may contain line ends. The
readers of text use these functions to cut bytes into chunks of whole rows, and text into fields.
"""

import csv
import io
import re
from collections.abc import Iterator
from functools import cache
from typing import IO

import numpy as np

from recsys.errors import InputError

# Rows have a limit of their own, below: csv must accept a field of any length.
csv.field_size_limit(2**31 - 1)

MAX_ROW_BYTES = 1 << 24
"""Bytes that a row may have. A longer one is accepted only if one read of a chunk has all of it."""


def too_long(place: str) -> InputError:
    """Return the error of a row longer than `MAX_ROW_BYTES`."""
    return InputError(
        place,
        f"rows must be at most {MAX_ROW_BYTES:,} bytes long",
        found="one is longer",
        remedy="Look for missing line ends, or for a stray quote.",
    )


def read_line(stream: IO[bytes], label: str) -> bytes:
    """Return the rest of a line.

    Raises:
        InputError: if it is longer than `MAX_ROW_BYTES`.
    """
    line = stream.readline(MAX_ROW_BYTES + 1)
    if len(line) > MAX_ROW_BYTES:
        raise too_long(f"{label}, byte {stream.tell():,}")
    return line


def read_chunks(
    stream: IO[bytes], n_bytes: int, quoting: str | None, label: str, first_line: int
) -> Iterator[tuple[bytes, int]]:
    """Yield whole rows in chunks of about `n_bytes`, each with the number of its first line.

    Blank chunks are left out.

    Args:
        stream: The text, from the start of a row.
        n_bytes: Bytes to read at a time.
        quoting: The separator if fields may be in quotes; None if a quote is an ordinary character.
        label: The name of the file, for error messages.
        first_line: The number of the stream's first line.

    Raises:
        InputError: if the file ends within quotes, or a row is longer than `MAX_ROW_BYTES`.
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
    """Yield the fields of each row that is not empty, with the number of lines before it.

    Quotes are ordinary characters if the separator is `::`.
    """
    if separator == "::":
        yield from split_lines(text, separator)
        return
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    n_before = 0
    for fields in rows:
        if fields:
            yield n_before, fields
        n_before = rows.line_num


def split_lines(text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the fields of each line that is not empty, with the number of lines before it.

    Quotes are ordinary characters.
    """
    lines = (line.rstrip("\r\n") for line in io.StringIO(text, newline=""))
    return ((n, line.split(separator)) for n, line in enumerate(lines) if line)


def _last_row_end(data: bytes, quoting: str | None) -> int:
    """Return the end of the last whole row in data that starts with a row."""
    if quoting is None or b'"' not in data:
        return data.rfind(b"\n") + 1
    text = np.frombuffer(data, np.uint8)
    quotes = np.flatnonzero(text == ord('"'))
    # If each quote at an even position starts a field, or follows another quote (a doubled one),
    # then quotes open and close by turns. A line end after an even number of quotes ends a row.
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
    """Return the pattern of as many whole rows as possible.

    Text after a closing quote belongs to the field, as it does for `csv`. The quantifiers are
    possessive (`*+`): without backtracking the time is linear.
    """
    s = re.escape(separator.encode())
    field = rb'(?:"[^"]*+(?:""[^"]*+)*+"[^%b\r\n]*+|[^"%b\r\n][^%b\r\n]*+)?' % (s, s, s)
    return re.compile(rb'(?:[^"\n]*+\n|(?:%b%b)*+%b(?:\r\n?|\n))*+' % (field, s, field))
