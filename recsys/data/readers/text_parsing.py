"""Parsing of chunks of text into batches of rows, with Arrow's CSV reader."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from recsys.data.readers.columns import TITLE_ROLES, Column
from recsys.data.readers.fragments import Batch
from recsys.data.readers.ids import as_id_column
from recsys.data.readers.text_dialect import BLANKS, Dialect
from recsys.data.readers.times import Times, from_integers, parse_times

# Arrow's separators are single characters: `::` is replaced by one that no text contains.
_UNIT_SEPARATOR = b"\x1f"

_ID_TYPE = pa.dictionary(pa.int32(), pa.string())
_TYPES = {
    "user": _ID_TYPE,
    "item": _ID_TYPE,
    "rating": pa.float64(),
    "title": pa.string(),
    "name": pa.string(),
}


def parse_chunk(
    chunk: bytes,
    dialect: Dialect,
    columns: Mapping[str, Column],
    threshold: float | None,
    first_order: int,
) -> Batch | None:
    """Return the rows of a chunk, None if a row breaks a rule.

    Args:
        chunk: Whole rows.
        dialect: The dialect of the file.
        columns: The columns of the file, by role.
        threshold: Least rating of a positive; None if every row is one.
        first_order: `Batch.order` of the first row.
    """
    table = _parse(chunk, dialect, columns)
    if table is None or _has_gaps(table):
        return None
    times = None
    if "timestamp" in table.column_names:
        times = _times(table, dialect)
        if times is None:
            return None
    n = table.num_rows
    rating = table["rating"].to_numpy() if "rating" in table.column_names else None
    return Batch(
        user=_ids(table, "user", dialect),
        item=_ids(table, "item", dialect),
        positive=(
            np.ones(n, dtype=bool) if rating is None or threshold is None else rating >= threshold
        ),
        rating_max=None if rating is None else float(rating.max()),
        time=times,
        order=np.arange(first_order, first_order + n, dtype=np.int64),
        title=next(
            (_single(table[role]) for role in TITLE_ROLES if role in table.column_names), None
        ),
    )


def _parse(chunk: bytes, dialect: Dialect, columns: Mapping[str, Column]) -> pa.Table | None:
    """Return the used columns by role, None if a row cannot be parsed.

    Times are integers if all of the chunk's are, else text.
    """
    if "timestamp" in columns and dialect.time_form == "number":
        integers = _parse_as(chunk, dialect, columns, pa.int64())
        if integers is not None:
            return integers
    return _parse_as(chunk, dialect, columns, pa.string())


def _parse_as(
    chunk: bytes, dialect: Dialect, columns: Mapping[str, Column], time_type: pa.DataType
) -> pa.Table | None:
    names = [f"column {position}" for position in range(dialect.n_columns)]
    used = {role: names[column.position] for role, column in columns.items()}
    types = {**_TYPES, "timestamp": time_type}
    wide = dialect.separator == "::"
    try:
        table = pa_csv.read_csv(
            pa.BufferReader(chunk.replace(b"::", _UNIT_SEPARATOR) if wide else chunk),
            pa_csv.ReadOptions(column_names=names, block_size=max(len(chunk), 1)),
            pa_csv.ParseOptions(
                delimiter=_UNIT_SEPARATOR.decode() if wide else dialect.separator,
                quote_char=False if wide else '"',
                newlines_in_values=dialect.quoting is not None and b'"' in chunk,
            ),
            pa_csv.ConvertOptions(
                include_columns=list(used.values()),
                column_types={name: types[role] for role, name in used.items()},
                null_values=[""],
                strings_can_be_null=False,
            ),
        )
    except pa.ArrowInvalid:
        return None
    return table.rename_columns(list(used)).unify_dictionaries()


def _has_gaps(table: pa.Table) -> bool:
    """Return whether an id is empty, or a rating is missing or not finite."""
    for role in ("user", "item"):
        dictionary = _single(table[role]).dictionary
        if pc.any(pc.equal(pc.utf8_trim_whitespace(dictionary), "")).as_py():
            return True
    rating = table["rating"] if "rating" in table.column_names else None
    return rating is not None and (
        rating.null_count > 0 or not pc.all(pc.is_finite(rating)).as_py()
    )


def _single(column: pa.ChunkedArray) -> pa.Array:
    """Return a column of one chunk or none as an array."""
    combined = column.combine_chunks()
    return combined.chunk(0) if isinstance(combined, pa.ChunkedArray) else combined


def _times(table: pa.Table, dialect: Dialect) -> Times | None:
    """Return the times of the rows, None if one is missing or not of the file's form."""
    values = _single(table["timestamp"])
    if values.null_count:
        return None
    if values.type == pa.int64():
        return from_integers(values)
    return parse_times(values, dialect.time_form)


def _ids(table: pa.Table, role: str, dialect: Dialect) -> pa.DictionaryArray:
    column = _single(table[role])
    if role in dialect.padded:
        stripped = pc.utf8_trim(column.dictionary, "".join(BLANKS))
        column = pa.DictionaryArray.from_arrays(column.indices, stripped)
    return as_id_column(column)
