"""Reader of Parquet files. A fragment is a range of row groups."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import repeat
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from recsys.config.sections import ColumnsConfig
from recsys.data.plain_types import require_plain
from recsys.data.readers.arrow_batches import find_columns, to_batch
from recsys.data.readers.fragments import Batch, FileStructure, Fragment, Range
from recsys.data.sources.files import DataFile, open_raw
from recsys.errors import InputError

FRAGMENT_ROWS = 1 << 20
"""Rows after which a fragment ends with its row group, and most rows of a batch."""


@contextmanager
def open_parquet(
    file: DataFile, int96_unit: Literal["ns", "us"] = "ns"
) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file; `int96_unit`: the unit in which times of the old type INT96 are read.

    Raises:
        InputError: if the file is in an archive or is damaged, also while the block reads it.
    """
    if file.member is not None:
        raise InputError(
            file.label,
            "must be outside of an archive",
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


def recognises(head: bytes) -> bool:
    """Return whether a file begins with the magic bytes of Parquet."""
    return head.startswith(b"PAR1")


def inspect(file: DataFile, columns: ColumnsConfig | None) -> FileStructure:
    """Return the columns of a file, and ranges of whole row groups.

    Raises:
        InputError: if the file is damaged or lacks a needed column.
    """
    with open_parquet(file) as parquet:
        metadata = parquet.metadata
        found = find_columns(parquet.schema_arrow, columns, file.label)
        rows = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    ranges, start, first_row, n_rows = [], 0, 1, 0
    for stop, n in enumerate(rows, 1):
        n_rows += n
        if n_rows >= FRAGMENT_ROWS or stop == len(rows):
            ranges.append(Range(start, stop, first_row))
            start, first_row, n_rows = stop, first_row + n_rows, 0
    return FileStructure(found, ranges)


def read(fragment: Fragment, threshold: float | None) -> Iterator[Batch]:
    """Yield the rows of a fragment in batches.

    A rating of at least `threshold` is a positive; if it is None, every row is.

    Raises:
        InputError: if a value breaks a rule, by file, row (from 1) and column.
    """
    assert fragment.range.stop is not None
    n_before = 0
    with (
        open_parquet(fragment.file) as parquet,
        open_parquet(fragment.file, "us") as in_microseconds,
    ):
        schema = parquet.schema_arrow
        names = [column.name for column in fragment.columns.values()]
        require_plain(schema, names, fragment.file.label)
        groups = list(range(fragment.range.start, fragment.range.stop))
        coarse: Iterable[pa.RecordBatch | None] = repeat(None)
        time = fragment.columns.get("timestamp")
        if time is not None and _is_int96(parquet, time.name):
            coarse = in_microseconds.iter_batches(
                FRAGMENT_ROWS, row_groups=groups, columns=[time.name]
            )
        batches = parquet.iter_batches(FRAGMENT_ROWS, row_groups=groups, columns=names)
        for rows, times in zip(batches, coarse, strict=False):
            microseconds = None if times is None else times.column(0)
            yield to_batch(rows, fragment, n_before, threshold, microseconds)
            n_before += rows.num_rows


def _is_int96(parquet: pq.ParquetFile, name: str) -> bool:
    leaves = (parquet.schema.column(position) for position in range(len(parquet.schema)))
    return any(leaf.path == name and leaf.physical_type == "INT96" for leaf in leaves)
