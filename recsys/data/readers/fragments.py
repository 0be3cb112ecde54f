"""Fragments of files, which tasks read independently, and the batches of rows read from them."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recsys.data.readers.columns import Column
from recsys.data.readers.text_dialect import Dialect
from recsys.data.readers.times import Times
from recsys.data.sources.files import DataFile

CANDIDATES = 3
"""Code of the candidates' rows, in place of a split's."""

ORDER_BITS = 40
"""Bits of `Batch.order` that count rows within a fragment; the bits above hold its index."""


class Range(NamedTuple):
    """Range of a file that one task reads, in a unit that its format chooses.

    `stop`: None for the end of the file. `first_row`: the row number at `start`, from 1, for error
    messages; a format that cannot know it without reading the rows before gives any number.
    """

    start: int
    stop: int | None
    first_row: int


@dataclass(frozen=True)
class FileStructure:
    """Columns of a file by role, and the ranges that tasks read, in file order.

    `dialect`: of a text file, None for other formats.
    """

    columns: dict[str, Column]
    ranges: list[Range]
    dialect: Dialect | None = None


@dataclass(frozen=True)
class Fragment:
    """A range of a file that one task reads.

    `format`: a name in `FORMATS`; None for the candidates of the NCF layout. `index`: position
    among all fragments of the source. `split`: code of the split of the rows, or `CANDIDATES`.
    """

    file: DataFile
    format: str | None
    index: int
    split: int
    range: Range
    columns: dict[str, Column]
    dialect: Dialect | None = None

    @property
    def first_order(self) -> int:
        """The `order` of the first row."""
        return self.index << ORDER_BITS


@dataclass(frozen=True)
class Batch:
    """Rows of a fragment in file order.

    `user`, `item` (n,): dictionary arrays of int32 indices into int64 or string ids.
    `positive` (n,) bool. `rating_max`: the largest rating of the batch, None without ratings.
    `time` (n,): None if the file has no times. `order` (n,) int64: increases through the whole
    source; in a candidate file it is `row << 16 | position`, and the held-out item has position 0.
    `title` (n,): string array, None if the file has no titles.
    """

    user: pa.DictionaryArray
    item: pa.DictionaryArray
    positive: npt.NDArray[np.bool_]
    rating_max: float | None
    time: Times | None
    order: npt.NDArray[np.int64]
    title: pa.Array | None = None
