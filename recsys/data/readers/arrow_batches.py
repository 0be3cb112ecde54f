"""Conversion of Arrow record batches into batches of rows, with their checks.

For formats whose columns have types, such as Parquet.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from recsys.config.sections import ColumnsConfig
from recsys.data.readers.columns import TITLE_ROLES, Column, columns_by_name
from recsys.data.readers.fragments import Batch, Fragment
from recsys.data.readers.ids import as_id_column
from recsys.data.readers.times import (
    Form,
    Times,
    find_form,
    from_floats,
    from_int96,
    from_integers,
    from_timestamps,
    is_number,
    is_time,
    parse_times,
)
from recsys.errors import InputError


def find_columns(schema: pa.Schema, columns: ColumnsConfig | None, place: str) -> dict[str, Column]:
    """Return the columns of a file with this schema, by role.

    Raises:
        InputError: if a needed column is not found.
    """
    found = columns_by_name(schema.names, columns, place)
    if "name" in found and not _is_text(schema.field(found["name"].position).type):
        del found["name"]
    return found


def to_batch(
    rows: pa.RecordBatch,
    fragment: Fragment,
    n_before: int,
    threshold: float | None,
    microseconds: pa.Array | None = None,
) -> Batch:
    """Return the rows of a record batch (n rows) that has the columns of a fragment.

    Args:
        rows: The record batch; other columns are ignored.
        fragment: The fragment that it was read from.
        n_before: Number of rows of the fragment before these.
        threshold: Least rating of a positive; None if every row is one.
        microseconds: The times (n,) in microseconds, if their nanoseconds may have overflowed.

    Raises:
        InputError: if a value breaks a rule, by file, row (from 1) and column.
    """
    columns = {
        role: _Values(
            rows[column.name],
            f"{fragment.file.label}, row {{}}, column {column.name}",
            fragment.range.first_row + n_before,
        )
        for role, column in fragment.columns.items()
    }
    times = _times(columns["timestamp"], microseconds) if "timestamp" in columns else None
    rating = _ratings(columns["rating"]) if "rating" in columns else None
    order = fragment.first_order + n_before
    return Batch(
        user=_ids(columns["user"]),
        item=_ids(columns["item"]),
        positive=_positives(rating, threshold, rows.num_rows),
        rating_max=None if rating is None else float(rating.max()),
        time=times,
        order=np.arange(order, order + rows.num_rows, dtype=np.int64),
        title=next((_titles(columns[role]) for role in TITLE_ROLES if role in columns), None),
    )


@dataclass(frozen=True)
class _Values:
    """Values of one column, and their place for error messages, with a gap for the row number."""

    values: pa.Array
    place: str
    first_row: int

    def refuse(self, bad: pa.Array, rule: str) -> None:
        """Raise an error for the first row at which `bad` is true, if there is one."""
        row = pc.index(bad, True).as_py()
        if row >= 0:
            value = self.values[row].as_py()
            raise InputError(
                self.place.format(self.first_row + row),
                rule,
                found="is missing" if value is None else f"got {value!r}",
                remedy="Correct or remove the row.",
            )

    def wrong_type(self, kind: pa.DataType, rule: str, remedy: str) -> InputError:
        """Return the error of a column whose type `kind` breaks a rule."""
        place = self.place.format(self.first_row)
        return InputError(place, rule, found=f"holds {kind}", remedy=remedy)


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or kind == pa.string_view()
    )


def _positives(
    rating: npt.NDArray[np.floating[Any]] | None, threshold: float | None, n: int
) -> npt.NDArray[np.bool_]:
    if rating is None or threshold is None:
        return np.ones(n, dtype=bool)
    # A rating of 32 bits is compared in 32 bits: a stored 4.1 is at least 4.1 there too.
    return rating >= rating.dtype.type(threshold)


def _titles(column: _Values) -> pa.Array:
    try:
        return pc.cast(column.values, pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        kind, remedy = column.values.type, "Convert or remove the titles."
        raise column.wrong_type(kind, "must hold text", remedy) from None


def _ids(column: _Values) -> pa.DictionaryArray:
    values = column.values
    column.refuse(pc.is_null(values), "must be an id")
    if pa.types.is_dictionary(values.type):  # it may have ids that no row has
        values = values.dictionary_decode()
    kind = values.type
    if pa.types.is_floating(kind):
        # pandas turns integer columns with gaps into floats.
        whole = pc.and_(pc.is_finite(values), pc.equal(pc.round(values), values))
        column.refuse(pc.invert(whole), "must be an integer or text")
        values = pc.cast(values, pa.int64())
    elif not (pa.types.is_integer(kind) or _is_text(kind)):
        raise column.wrong_type(kind, "must hold integers or text", "Convert the ids.")
    if kind == pa.string_view():
        values = pc.cast(values, pa.string())
    ids = as_id_column(values.dictionary_encode())
    if ids.dictionary.type == pa.string():
        blank = pc.equal(pc.utf8_trim_whitespace(ids.dictionary), "")
        column.refuse(blank.take(ids.indices), "must be an id")
    return ids


def _ratings(column: _Values) -> npt.NDArray[np.floating[Any]]:
    """Return finite floats (n,), of 32 bits if the column has 32 bits, else of 64."""
    rule = "must be a finite number"
    column.refuse(pc.is_null(column.values), rule)
    wide = pa.float32() if column.values.type == pa.float32() else pa.float64()
    try:
        numbers = pc.cast(column.values, wide, safe=False)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        column.refuse(
            pa.array([not is_number(str(value)) for value in column.values.to_pylist()]), rule
        )
        raise
    column.refuse(pc.invert(pc.is_finite(numbers)), rule)
    result: npt.NDArray[np.floating[Any]] = numbers.to_numpy()
    return result


def _times(column: _Values, microseconds: pa.Array | None) -> Times:
    values, rule = column.values, "must be a number within 64 bits or a date"
    column.refuse(pc.is_null(values), rule)
    if microseconds is not None:
        return from_int96(values, microseconds)
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    form: Form = "number"
    kind = values.type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return from_timestamps(values)
    if pa.types.is_integer(kind):
        times = from_integers(values)
    elif pa.types.is_floating(kind):
        times = from_floats(pc.cast(values, pa.float64()).to_numpy())
    elif pa.types.is_decimal(kind) or _is_text(kind):
        values = pc.cast(values, pa.string())
        form = (find_form(values[0].as_py()) if len(values) else None) or "number"
        times = parse_times(values, form)
    else:
        raise column.wrong_type(kind, "must hold numbers or dates", "Convert the times.")
    if times is None:
        texts = pc.cast(values, pa.string()).dictionary_encode()
        wrong = pa.array([not is_time(text, form) for text in texts.dictionary.to_pylist()])
        column.refuse(wrong.take(texts.indices), rule)
        place = column.place.format(column.first_row)
        raise RuntimeError(f"{place}: times cannot be parsed, though each of them can.")
    return times
