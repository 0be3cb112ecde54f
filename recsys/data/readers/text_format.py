"""How a text file is laid out: separator, header, columns, kind of times.

Looked up once a file, on its head, before its pieces are read by `readers`.
"""

import json
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import islice

from recsys.config.sections import ColumnsConfig
from recsys.data.readers.columns import (
    chosen_columns,
    columns_by_name,
    columns_by_position,
    names_columns,
)
from recsys.data.readers.text_rows import read_rows
from recsys.data.readers.times import Form, find_form, is_number
from recsys.errors import InputError

SEPARATORS = ("::", "\t", ",", ";", "|")
BLANKS = (" ", "\t")
_SAMPLE_ROWS = 50
_JSON = re.compile(r"""\{\s*(u?["'}]|$)|\[\s*(["\[{\]]|$)""")
"""How an object begins, or an array of strings, arrays or objects; a bracket alone may begin an id such as {3F25-04E0}."""

_Rows = list[tuple[int, list[str]]]


@dataclass(frozen=True)
class TextFormat:
    """Layout of one text file.

    `columns`: position by role. `labels`: what errors call a role's column. `data_start`: bytes before the first data row.
    `first_row`: that row's number, lines counted from 1. `padded`: roles of the columns of ids that are filled up with blanks,
    which are no part of the ids.
    """

    separator: str
    n_columns: int
    columns: dict[str, int]
    labels: dict[str, str]
    data_start: int
    first_row: int
    time_form: Form
    padded: tuple[str, ...]

    @property
    def quoting(self) -> str | None:
        """The separator where fields may stand in quotes, None where a quote is a character like any other."""
        return None if self.separator == "::" else self.separator


def find_format(
    head: bytes, whole: bool, columns: ColumnsConfig | None, place: str
) -> TextFormat | None:
    """The layout of a text file from its first bytes, None where these hold too few rows to know it.

    `whole`: whether the head is all of the file; otherwise its last row may be cut off.

    Raises:
        InputError: if the bytes are no UTF-8 text, hold no row, or lack a column that is needed.
    """
    if b"\0" in head:
        raise InputError(
            place,
            "must be CSV, TSV, gzip, zip or Parquet",
            found="it is binary",
            remedy="Convert it, or pass the file with the ratings.",
        )
    mark = 3 if head.startswith(b"\xef\xbb\xbf") else 0
    text = head[mark:].decode("utf-8", errors="replace")
    if _is_json(text):
        raise InputError(
            place,
            "must be CSV, TSV or Parquet",
            found="is JSON",
            remedy="Convert it to one of them.",
        )
    if not whole and text.count("\n") < 2:
        return None
    samples = {separator: _sample(text, separator) for separator in SEPARATORS}
    if not whole:
        if _too_few(samples.values()):
            return None
        samples = {separator: rows[:-1] for separator, rows in samples.items()}
    if not any(samples.values()):
        raise InputError(
            place,
            "must hold interactions",
            found="is empty",
            remedy="Give a file with at least a user and an item column.",
        )
    separator = max(SEPARATORS, key=lambda separator: _regularity(samples[separator]))
    starts, rows = (
        [start for start, _ in samples[separator]],
        [fields for _, fields in samples[separator]],
    )
    names = [field.strip() for field in rows[0]]
    if _has_header(rows, columns):
        found = columns_by_name(names, columns, place)
        labels = {role: names[position] for role, position in found.items()}
        starts, rows = starts[1:], rows[1:]
    else:
        found = columns_by_position(len(names), columns, place)
        labels = {role: role for role in found}
    if not rows:
        raise InputError(
            place,
            "must hold interactions",
            found="has a header alone",
            remedy="Give a file with at least one row.",
        )
    time_form = _find_time_form(rows, found.get("timestamp"))
    every_row = [fields for start, fields in read_rows(text, separator) if start >= starts[0]]
    padded = tuple(
        role
        for role in ("user", "item")
        if _is_padded(every_row if whole else every_row[:-1], found[role], len(names))
    )
    data_start = mark + _line_start(head[mark:], starts[0])
    return TextFormat(
        separator, len(names), found, labels, data_start, starts[0] + 1, time_form, padded
    )


def _is_json(text: str) -> bool:
    line = text.lstrip().split("\n", 1)[0]
    if _JSON.match(line):
        return True
    try:
        return line.startswith("[") and isinstance(json.loads(line), list)
    except (ValueError, RecursionError):
        return False


def _sample(text: str, separator: str) -> _Rows:
    rows = (
        (start, fields)
        for start, fields in read_rows(text, separator)
        if len(fields) > 1 or fields[0].strip()
    )
    return list(islice(rows, _SAMPLE_ROWS))


def _too_few(samples: Collection[_Rows]) -> bool:
    """Whether a head may lack a header and a further row, beside its last row, which may be cut off."""
    cutting = [rows for rows in samples if rows and len(rows[0][1]) > 1]
    return min(len(rows) for rows in cutting or samples) < 3


def _regularity(rows: _Rows) -> tuple[float, int]:
    """Share of the rows with as many fields as the first one, and that number; nothing where it is one."""
    counts = [len(fields) for _, fields in rows]
    return (
        (counts.count(counts[0]) / len(counts), counts[0]) if counts and counts[0] > 1 else (0, 0)
    )


def _has_header(rows: Sequence[Sequence[str]], columns: ColumnsConfig | None) -> bool:
    named = any(isinstance(value, str) for value in chosen_columns(columns).values())
    if named or names_columns(rows[0]):
        return True
    # Unknown names over a column of numbers are a header too: better to ask for data.columns than to read it as data.
    further = [row for row in rows[1:] if len(row) == len(rows[0])]
    over_numbers = any(
        all(is_number(row[position]) for row in further) for position in range(len(rows[0]))
    )
    return bool(further) and over_numbers and not any(is_number(field) for field in rows[0])


def _find_time_form(rows: Sequence[Sequence[str]], position: int | None) -> Form:
    values = [
        row[position]
        for row in rows
        if position is not None and position < len(row) and row[position].strip()
    ]
    return (find_form(values[0]) if values else None) or "number"


def _is_padded(rows: Sequence[Sequence[str]], position: int, n_columns: int) -> bool:
    """Whether a column is filled up with blanks: all fields begin or all end with one, or they are equally wide and some do."""
    fields = [row[position] for row in rows if len(row) == n_columns]
    begin, end = (
        [field.startswith(BLANKS) for field in fields],
        [field.endswith(BLANKS) for field in fields],
    )
    equally_wide = len({len(field) for field in fields}) == 1
    return bool(fields) and (all(begin) or all(end) or (equally_wide and any(begin + end)))


def _line_start(data: bytes, n_lines: int) -> int:
    """Bytes of the first lines, their ends with them."""
    ends = (match.end() for match in re.finditer(rb"\r\n?|\n", data))
    return next(islice(ends, n_lines - 1, None)) if n_lines else 0
