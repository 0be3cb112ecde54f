"""Search for the row of a text file that breaks a rule, for an error message that names it.

Arrow parses fast but does not name the row. This slow search runs after Arrow has failed.
"""

from collections.abc import Mapping

from recsys.data.readers.columns import Column
from recsys.data.readers.text_dialect import Dialect
from recsys.data.readers.text_rows import read_rows
from recsys.data.readers.times import is_number, is_time
from recsys.errors import InputError

_REMEDY = "Correct or remove the row."


def find_error(
    chunk: bytes, first_line: int, label: str, dialect: Dialect, columns: Mapping[str, Column]
) -> InputError:
    """Return the error of the first row of a chunk that breaks a rule.

    Args:
        chunk: Whole rows.
        first_line: The number of their first line.
        label: The name of the file.
        dialect: The dialect of the file.
        columns: The columns of the file, by role.
    """
    text = chunk.decode("utf-8", errors="surrogateescape")
    for n_before, fields in read_rows(text, dialect.separator):
        error = _error_of(fields, f"{label}, row {first_line + n_before}", dialect, columns)
        if error is not None:
            return error
    return InputError(
        f"{label}, after row {first_line}",
        "must be regular text",
        found="a row cannot be parsed",
        remedy="Look for a stray quote.",
    )


def _error_of(
    fields: list[str], place: str, dialect: Dialect, columns: Mapping[str, Column]
) -> InputError | None:
    """Return the error of a row, None if it breaks no rule."""
    if len(fields) != dialect.n_columns:
        rule = f"must have {dialect.n_columns} fields"
        return InputError(place, rule, f"{len(fields)}", _REMEDY)
    remedy = _REMEDY
    if dialect.first_row == 1:  # there is no header: the columns may be others
        remedy = "Correct or remove the row, or set the columns with data.columns."
    for role, column in columns.items():
        value, column_place = fields[column.position], f"{place}, column {column.name}"
        if any("\udc80" <= character <= "\udcff" for character in value):  # bytes that are no UTF-8
            return InputError(
                column_place, "must be UTF-8", f"{value!r}", "Save the file as UTF-8."
            )
        if role in ("user", "item") and not value.strip():
            return InputError(column_place, "must be an id", found="is empty", remedy=_REMEDY)
        if role == "rating" and not is_number(value):
            return InputError(column_place, "must be a number", f"{value!r}", remedy)
        if role == "timestamp" and not is_time(value, dialect.time_form):
            rule = "must be a number within 64 bits or an ISO date"
            if dialect.time_form != "number":
                rule = "must be an ISO date like the others"
            return InputError(column_place, rule, f"{value!r}", remedy)
    return None
