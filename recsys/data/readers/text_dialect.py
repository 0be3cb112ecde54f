"""Detection of a text file's dialect: separator, header, columns, padding and form of times.

Each file's dialect is detected once, in its first bytes, before its fragments are read.
"""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from recsys.config.sections import ColumnsConfig
from recsys.data.readers.columns import (
    Column,
    chosen_columns,
    columns_by_name,
    columns_by_position,
    is_header,
)
from recsys.data.readers.text_rows import read_rows
from recsys.data.readers.times import Form, find_form, is_number
from recsys.errors import InputError

SEPARATORS = ("::", "\t", ",", ";", "|")
BLANKS = (" ", "\t")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_SAMPLE_ROWS = 50
_JSON = re.compile(r"""\{\s*(u?["'}]|$)|\[\s*(["\[{\]]|$)""")
"""Start of an object, or of an array of strings, arrays or objects.

A bracket alone may start an id such as {3F25-04E0}.
"""

_Rows = list[tuple[int, list[str]]]
"""Rows as fields, each with the number of lines before it."""


@dataclass(frozen=True)
class Dialect:
    """Dialect of one text file.

    `data_start`: bytes before the first data row. `first_row`: the number of its line, from 1.
    `time_form`: "number" if there are no times. `padded`: roles of the id columns that are padded
    with blanks, which are not part of the ids.
    """

    separator: str
    n_columns: int
    data_start: int
    first_row: int
    time_form: Form
    padded: tuple[str, ...]

    @property
    def quoting(self) -> str | None:
        """The separator if fields may be in quotes, None if a quote is an ordinary character."""
        return None if self.separator == "::" else self.separator


def detect_dialect(
    head: bytes, whole: bool, columns: ColumnsConfig | None, place: str
) -> tuple[Dialect, dict[str, Column]] | None:
    """Return the dialect of a file and its columns by role, None if its head has too few rows.

    Args:
        head: The first bytes of the file.
        whole: Whether they are the whole file; otherwise their last row may be cut off.
        columns: The columns that `data.columns` sets.
        place: The name of the file, for error messages.

    Raises:
        InputError: if the bytes are binary or JSON, hold no row, or lack a needed column.
    """
    mark = len(_BYTE_ORDER_MARK) if head.startswith(_BYTE_ORDER_MARK) else 0
    text = head[mark:].decode("utf-8", errors="replace")
    _require_text(head, text, place)
    samples = _samples(text, whole)
    if samples is None:
        return None
    if not any(samples.values()):
        raise _no_interactions(place, "is empty", "at least a user and an item column")
    separator = max(SEPARATORS, key=lambda separator: _regularity(samples[separator]))
    lines_before = [n for n, _ in samples[separator]]
    rows = [fields for _, fields in samples[separator]]
    names = [field.strip() for field in rows[0]]
    if _has_header(rows, columns):
        found = columns_by_name(names, columns, place)
        lines_before, rows = lines_before[1:], rows[1:]
    else:
        found = columns_by_position(len(names), columns, place)
    if not rows:
        raise _no_interactions(place, "has a header alone", "at least one row")
    every_row = [fields for n, fields in read_rows(text, separator) if n >= lines_before[0]]
    padded = _padded_columns(every_row if whole else every_row[:-1], found, len(names))
    data_start = mark + _line_start(head[mark:], lines_before[0])
    time_form = _find_time_form(rows, found.get("timestamp"))
    first_row = lines_before[0] + 1
    return Dialect(separator, len(names), data_start, first_row, time_form, padded), found


def _require_text(head: bytes, text: str, place: str) -> None:
    if b"\0" in head:
        raise InputError(
            place,
            "must be CSV, TSV, gzip, zip or Parquet",
            found="it is binary",
            remedy="Convert it, or pass the file with the ratings.",
        )
    if _is_json(text):
        raise InputError(
            place,
            "must be CSV, TSV or Parquet",
            found="is JSON",
            remedy="Convert it to one of them.",
        )


def _no_interactions(place: str, found: str, needed: str) -> InputError:
    return InputError(
        place, "must hold interactions", found=found, remedy=f"Give a file with {needed}."
    )


def _is_json(text: str) -> bool:
    line = text.lstrip().split("\n", 1)[0]
    if _JSON.match(line):
        return True
    try:
        return line.startswith("[") and isinstance(json.loads(line), list)
    except (ValueError, RecursionError):
        return False


def _samples(text: str, whole: bool) -> dict[str, _Rows] | None:
    """Return the first rows by separator, None if the text may lack a header and a further row."""
    if not whole and text.count("\n") < 2:
        return None
    samples = {separator: _sample(text, separator) for separator in SEPARATORS}
    if whole:
        return samples
    if _too_few(samples.values()):
        return None
    return {separator: rows[:-1] for separator, rows in samples.items()}


def _sample(text: str, separator: str) -> _Rows:
    rows = (
        (n, fields)
        for n, fields in read_rows(text, separator)
        if len(fields) > 1 or fields[0].strip()
    )
    return list(islice(rows, _SAMPLE_ROWS))


def _too_few(samples: Collection[_Rows]) -> bool:
    """Return whether a sample may lack a header and a row before its last, maybe cut-off one."""
    separated = [rows for rows in samples if rows and len(rows[0][1]) > 1]
    return min(len(rows) for rows in separated or samples) < 3


def _regularity(rows: _Rows) -> tuple[float, int]:
    """Return the share of rows with as many fields as the first, and that number; (0, 0) if 1."""
    counts = [len(fields) for _, fields in rows]
    if not counts or counts[0] == 1:
        return 0, 0
    return counts.count(counts[0]) / len(counts), counts[0]


def _has_header(rows: Sequence[Sequence[str]], columns: ColumnsConfig | None) -> bool:
    named = any(isinstance(value, str) for value in chosen_columns(columns).values())
    if named or is_header(rows[0]):
        return True
    # Unknown names above numbers are a header too: it is better to ask for data.columns than to
    # read them as data.
    further = [row for row in rows[1:] if len(row) == len(rows[0])]
    above_numbers = any(
        all(is_number(row[position]) for row in further) for position in range(len(rows[0]))
    )
    return bool(further) and above_numbers and not any(is_number(field) for field in rows[0])


def _find_time_form(rows: Sequence[Sequence[str]], column: Column | None) -> Form:
    if column is None:
        return "number"
    position = column.position
    values = (row[position] for row in rows if position < len(row) and row[position].strip())
    value = next(values, None)
    return (find_form(value) if value is not None else None) or "number"


def _padded_columns(
    rows: Sequence[Sequence[str]], columns: Mapping[str, Column], n_columns: int
) -> tuple[str, ...]:
    """Return the roles of the id columns that are padded; rows of another length are ignored."""
    rows = [row for row in rows if len(row) == n_columns]
    return tuple(
        role
        for role in ("user", "item")
        if _is_padded([row[columns[role].position] for row in rows])
    )


def _is_padded(fields: Sequence[str]) -> bool:
    """Return whether the fields of a column are padded with blanks.

    All start with one, or all end with one, or all have one width and some start or end with one.
    """
    starts = [field.startswith(BLANKS) for field in fields]
    ends = [field.endswith(BLANKS) for field in fields]
    one_width = len({len(field) for field in fields}) == 1
    return bool(fields) and (all(starts) or all(ends) or (one_width and any(starts + ends)))


def _line_start(data: bytes, n_lines: int) -> int:
    """Return the number of bytes of the first lines, with their line ends."""
    ends = (match.end() for match in re.finditer(rb"\r\n?|\n", data))
    return next(islice(ends, n_lines - 1, None)) if n_lines else 0
