"""Rows of Parquet files."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import repeat
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recsys.config.sections import ColumnsConfig
from recsys.data.plain_types import require_plain
from recsys.data.readers.columns import columns_by_name
from recsys.data.readers.fragments import TITLES, Batch, Fragment, first_order, with_ids
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
from recsys.data.sources.files import DataFile, open_raw
from recsys.errors import InputError

PIECE_ROWS = 1 << 20
"""Rows after which a piece ends with its row group, and rows of a batch at most."""


@contextmanager
def open_parquet(
    file: DataFile, int96_unit: Literal["ns", "us"] = "ns"
) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file; `int96_unit`: what times of the old type INT96 are read in.

    Raises:
        InputError: if it is damaged, also while it is read inside the block, or lies in an archive.
    """
    if file.member is not None:
        raise InputError(
            file.label,
            "must lie outside of an archive",
            found="is in a zip",
            remedy="Extract it and pass its folder.",
        )
    with open_raw(file.path) as stream:
        try:
            with pq.ParquetFile(stream, coerce_int96_timestamp_unit=int96_unit) as parquet:
                yield parquet
        except (pa.ArrowInvalid, OSError) as error:
            reason = str(error).splitlines()[0].rstrip(".")
            raise InputError(
                file.label,
                "must be a whole Parquet file",
                found=f"it is cut off or damaged ({reason})",
                remedy="Copy or write it again.",
            ) from None


def list_parquet_pieces(
    file: DataFile, columns: ColumnsConfig | None
) -> tuple[dict[str, int], list[tuple[int, int, int]]]:
    """The columns by role, and pieces of whole row groups as (start, stop, first row).

    Raises:
        InputError: if the file is damaged, empty or lacks a needed column.
    """
    with open_parquet(file) as parquet:
        schema, metadata = parquet.schema_arrow, parquet.metadata
        found = columns_by_name(schema.names, columns, file.label)
        if "name" in found and not _is_text(schema.field(found["name"]).type):
            del found["name"]
        rows = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    pieces, start, first_row, n_rows = [], 0, 1, 0
    for group, n in enumerate(rows, 1):
        n_rows += n
        if n_rows >= PIECE_ROWS or group == len(rows):
            pieces.append((start, group, first_row))
            start, first_row, n_rows = group, first_row + n_rows, 0
    return found, pieces


def _is_int96(parquet: pq.ParquetFile, name: str) -> bool:
    leaves = (parquet.schema.column(position) for position in range(len(parquet.schema)))
    return any(leaf.path == name and leaf.physical_type == "INT96" for leaf in leaves)


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or kind == pa.string_view()
    )


def read_parquet(fragment: Fragment, threshold: float | None) -> Iterator[Batch]:
    """The rows of a fragment, in batches; a rating of at least `threshold` is a positive, every row where that is None.

    Raises:
        InputError: if a value breaks a rule, by file, row (from 1) and column.
    """
    assert fragment.columns is not None
    assert fragment.stop is not None
    order, row = first_order(fragment), fragment.first_row
    with (
        open_parquet(fragment.file) as parquet,
        open_parquet(fragment.file, "us") as in_microseconds,
    ):
        names = {
            role: parquet.schema_arrow.names[position]
            for role, position in fragment.columns.items()
        }
        require_plain(parquet.schema_arrow, names.values(), fragment.file.label)
        groups = list(range(fragment.start, fragment.stop))
        coarse: Iterable[pa.RecordBatch | None] = repeat(None)
        if "timestamp" in names and _is_int96(parquet, names["timestamp"]):
            coarse = in_microseconds.iter_batches(
                PIECE_ROWS, row_groups=groups, columns=[names["timestamp"]]
            )
        batches = parquet.iter_batches(PIECE_ROWS, row_groups=groups, columns=list(names.values()))
        for record_batch, microseconds in zip(batches, coarse, strict=False):
            columns = {
                role: _Column(
                    record_batch[name], f"{fragment.file.label}, row {{}}, column {name}", row
                )
                for role, name in names.items()
            }
            times = None
            if "timestamp" in columns:
                times = _times(
                    columns["timestamp"], None if microseconds is None else microseconds.column(0)
                )
            yield _batch(columns, record_batch.num_rows, times, threshold, order)
            order += record_batch.num_rows
            row += record_batch.num_rows


@dataclass(frozen=True)
class _Column:
    """Values of one column, with what errors need: a place with a gap for the row, and the first row's number."""

    values: pa.Array
    place: str
    first_row: int

    def refuse(self, bad: pa.Array, rule: str) -> None:
        """Raise for the first row where `bad` is true, if there is one."""
        row = pc.index(bad, True).as_py()
        if row >= 0:
            value = self.values[row].as_py()
            shown = "is missing" if value is None else f"got {value!r}"
            raise InputError(
                f"{self.place.format(self.first_row + row)}",
                rule,
                found=shown,
                remedy="Correct or remove the row.",
            )


def _batch(
    columns: dict[str, _Column], n: int, times: Times | None, threshold: float | None, order: int
) -> Batch:
    rating = _numbers(columns["rating"], "must be a finite number") if "rating" in columns else None
    # A rating stored in 32 bits is compared in 32 bits: 4.1 is at least 4.1 there too.
    positive = (
        np.ones(n, dtype=bool)
        if rating is None or threshold is None
        else rating >= rating.dtype.type(threshold)
    )
    return Batch(
        user=_ids(columns["user"]),
        item=_ids(columns["item"]),
        positive=positive,
        rating_max=None if rating is None else float(rating.max()),
        time=times,
        order=np.arange(order, order + n, dtype=np.int64),
        title=next((_titles(columns[role]) for role in TITLES if role in columns), None),
    )


def _titles(column: _Column) -> pa.Array:
    try:
        return pc.cast(column.values, pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        kind = column.values.type
        raise InputError(
            f"{column.place.format(column.first_row)}",
            "must hold text",
            found=f"holds {kind}",
            remedy="Convert or remove the titles.",
        ) from None


def _ids(column: _Column) -> pa.DictionaryArray:
    values = column.values
    column.refuse(pc.is_null(values), "must be an id")
    kind = values.type.value_type if pa.types.is_dictionary(values.type) else values.type
    if pa.types.is_floating(kind):
        # pandas turns integer columns with gaps into floats.
        whole = pc.and_(pc.is_finite(values), pc.equal(pc.round(values), values))
        column.refuse(pc.invert(whole), "must be an integer or text")
        values = pc.cast(values, pa.int64())
    elif not (pa.types.is_integer(kind) or _is_text(kind)):
        raise InputError(
            f"{column.place.format(column.first_row)}",
            "must hold integers or text",
            found=f"holds {kind}",
            remedy="Convert the ids.",
        )
    if not pa.types.is_dictionary(values.type):
        values = (
            pc.cast(values, pa.string()) if kind == pa.string_view() else values
        ).dictionary_encode()
    coded = with_ids(
        pa.DictionaryArray.from_arrays(pc.cast(values.indices, pa.int32()), values.dictionary)
    )
    if coded.dictionary.type == pa.string():
        column.refuse(
            pc.equal(pc.utf8_trim_whitespace(coded.dictionary), "").take(coded.indices),
            "must be an id",
        )
    return coded


def _numbers(column: _Column, rule: str) -> npt.NDArray[np.floating[Any]]:
    """The column as finite floats, in 32 bits where it is stored so."""
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


def _times(column: _Column, microseconds: pa.Array | None) -> Times:
    """The times of a column; `microseconds`: the same without what is below a microsecond, for INT96 alone."""
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
        place = column.place.format(column.first_row)
        raise InputError(
            place, "must hold numbers or dates", found=f"holds {kind}", remedy="Convert the times."
        )
    if times is None:
        texts = pc.cast(values, pa.string()).dictionary_encode()
        wrong = pa.array([not is_time(text, form) for text in texts.dictionary.to_pylist()])
        column.refuse(wrong.take(texts.indices), rule)
        raise RuntimeError(
            f"{column.place.format(column.first_row)}: cannot be read, though each of its times can."
        )
    return times
