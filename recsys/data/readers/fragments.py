"""What the readers take and give: pieces of files, and batches of rows in one form for all formats."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from recsys.data.readers.text_format import TextFormat
from recsys.data.readers.times import Times
from recsys.data.sources.files import DataFile

CANDIDATES = 3
"""Code of a row that names a candidate, in the place of a part's."""

TITLES = ("title", "name")
"""Roles of a column that can hold titles: surely, and where its values are the items'."""

ORDER_BITS = 40
"""Bits of an order that count rows inside a fragment; those above hold the fragment."""


@dataclass(frozen=True)
class Fragment:
    """A piece of a file that one task reads: bytes [start, stop) of text, or row groups [start, stop) of Parquet.

    `index`: place among all fragments. `part`: code of the part that its rows belong to. `first_row`: number of the first row,
    from 1, where that is known without reading what lies before. `columns`: position by role, for Parquet.
    """

    file: DataFile
    kind: Literal["text", "parquet", "candidates"]
    index: int
    part: int
    start: int
    stop: int | None
    first_row: int
    text: TextFormat | None = None
    columns: dict[str, int] | None = None

    @property
    def roles(self) -> Collection[str]:
        """What the columns that are read hold, by their roles."""
        return self.text.columns if self.text is not None else self.columns or ()


@dataclass(frozen=True)
class Batch:
    """Rows of a fragment in file order.

    `user`, `item` (n,): dictionary arrays of int32 indices over int64 or string ids. `positive` (n,) bool. `rating_max`: largest
    rating of the batch, None without ratings. `time` (n,): None where the file has none. `order` (n,) int64: place in the whole
    source; in a candidate file `row << 16 | position`, position 0 being the held-out item.
    `title` (n,): string array, None where the file has no titles.
    """

    user: pa.DictionaryArray
    item: pa.DictionaryArray
    positive: npt.NDArray[np.bool_]
    rating_max: float | None
    time: Times | None
    order: npt.NDArray[np.int64]
    title: pa.Array | None = None


def first_order(fragment: Fragment) -> int:
    """The order of a fragment's first row."""
    return fragment.index << ORDER_BITS


def as_ids(values: pa.Array) -> pa.Array:
    """Ids as int64 where all of them are integers in plain decimal form, as text otherwise.

    Text is exact: '007' and '7' stay two ids, and so do 'x' and 'x '.
    """
    if pa.types.is_integer(values.type) and values.type != pa.uint64():
        return pc.cast(values, pa.int64())
    text = pc.cast(values, pa.string())
    if not pc.all(pc.match_substring_regex(text, r"^(0|-?[1-9][0-9]{0,18})$"), min_count=0).as_py():
        return text
    try:
        return pc.cast(text, pa.int64())
    except pa.ArrowInvalid:  # beyond 64 bits
        return text


def with_ids(column: pa.DictionaryArray) -> pa.DictionaryArray:
    """The column with its dictionary turned into ids."""
    return pa.DictionaryArray.from_arrays(column.indices, as_ids(column.dictionary))
