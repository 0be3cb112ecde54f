"""How a text file is laid out: separator, header, columns, kind of times.

Looked up once a file, on its head, before its pieces are read by `readers`.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass

from recsys.config import ColumnsConfig
from recsys.data.columns import chosen_columns, columns_by_name, columns_by_position, names_columns
from recsys.data.times import Form, find_form, is_number

SEPARATORS = ("::", "\t", ",", ";", "|")
BLANKS = (" ", "\t")
_SAMPLE_LINES = 50


@dataclass(frozen=True)
class TextFormat:
    """Layout of one text file.

    `columns`: position by role. `labels`: what errors call a role's column. `data_start`: bytes before the first data row.
    `first_row`: that row's number, lines counted from 1. `quoted`: fields may hold separators and line ends inside quotes.
    `padded`: roles of the columns of ids that are filled up with blanks, which are no part of the ids.
    """

    separator: str
    n_columns: int
    columns: dict[str, int]
    labels: dict[str, str]
    data_start: int
    first_row: int
    time_form: Form
    quoted: bool
    padded: tuple[str, ...]


def split_line(line: str, separator: str) -> list[str]:
    """The fields of one line; a single one where a stray carriage return or an endless field leaves nothing to cut."""
    if separator == "::":
        return line.split("::")
    try:
        return next(csv.reader([line], delimiter=separator), [])
    except csv.Error:
        return [line]


def find_format(head: bytes, columns: ColumnsConfig | None, place: str) -> TextFormat:
    """The layout of a text file from its first bytes.

    Raises:
        ValueError: if the bytes are no UTF-8 text, hold no row, or lack a column that is needed.
    """
    if b"\0" in head:
        raise ValueError(
            f"{place}: must be CSV, TSV, gzip, zip or Parquet, but it is binary. Convert it, or pass the file with the ratings."
        )
    mark = 3 if head.startswith(b"\xef\xbb\xbf") else 0
    text = head[mark:].decode("utf-8", errors="replace")
    all_lines = [line.rstrip("\r") for line in text.split("\n") if line.strip()]
    lines = all_lines[:_SAMPLE_LINES]
    if not lines:
        raise ValueError(f"{place}: must hold interactions, but is empty. Give a file with at least a user and an item column.")
    separator = _find_separator(lines)
    rows = [split_line(line, separator) for line in lines]
    names = [field.strip() for field in rows[0]]
    if _has_header(rows, columns):
        found = columns_by_name(names, columns, place)
        # Blank lines may stand before the header.
        before = len(text) - len(text.lstrip())
        skipped = text[:before].count("\n") + 1
        data_start = mark + _line_end(head[mark:], skipped)
        labels = {role: names[position] for role, position in found.items()}
        rows = rows[1:]
    else:
        found = columns_by_position(len(names), columns, place)
        skipped, data_start, labels = 0, mark, {role: role for role in found}
    if not rows:
        raise ValueError(f"{place}: must hold interactions, but has a header alone. Give a file with at least one row.")
    time_form = _find_time_form(rows, found.get("timestamp"))
    every_row = [split_line(line, separator) for line in all_lines[len(lines) - len(rows) :]]
    padded = tuple(role for role in ("user", "item") if _is_padded(every_row, found[role], len(names)))
    return TextFormat(separator, len(names), found, labels, data_start, skipped + 1, time_form, b'"' in head, padded)


def _find_separator(lines: Sequence[str]) -> str:
    """The separator that cuts most lines into as many fields as the first one, into two at least."""

    def score(separator: str) -> tuple[int, int]:
        counts = [len(split_line(line, separator)) for line in lines]
        return (counts.count(counts[0]), counts[0]) if counts[0] > 1 else (0, 0)

    return max(SEPARATORS, key=score)


def _has_header(rows: Sequence[Sequence[str]], columns: ColumnsConfig | None) -> bool:
    named = any(isinstance(value, str) for value in chosen_columns(columns).values())
    if named or names_columns(rows[0]):
        return True
    # Unknown names over a column of numbers are a header too: better to ask for data.columns than to read it as data.
    further = [row for row in rows[1:] if len(row) == len(rows[0])]
    over_numbers = any(all(is_number(row[position]) for row in further) for position in range(len(rows[0])))
    return bool(further) and over_numbers and not any(is_number(field) for field in rows[0])


def _find_time_form(rows: Sequence[Sequence[str]], position: int | None) -> Form:
    values = [row[position] for row in rows if position is not None and position < len(row) and row[position].strip()]
    return (find_form(values[0]) if values else None) or "number"


def _is_padded(rows: Sequence[Sequence[str]], position: int, n_columns: int) -> bool:
    """Whether a column is filled up with blanks: all fields begin or all end with one, or they are equally wide and some do."""
    fields = [row[position] for row in rows if len(row) == n_columns]
    begin, end = [field.startswith(BLANKS) for field in fields], [field.endswith(BLANKS) for field in fields]
    equally_wide = len({len(field) for field in fields}) == 1
    return bool(fields) and (all(begin) or all(end) or (equally_wide and any(begin + end)))


def _line_end(data: bytes, n_lines: int) -> int:
    """Bytes up to and with the n-th line end."""
    end = 0
    for _ in range(n_lines):
        end = data.find(b"\n", end) + 1
        if end == 0:
            return len(data)
    return end
