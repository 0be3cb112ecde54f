"""Ids of users and items: the data's own, and contiguous ones in their order, from 0."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recsys.kernels.arrays import IntArray
from recsys.storage.files import write_atomically


def merge_ids(arrays: Sequence[pa.Array]) -> pa.Array:
    """Return the distinct ids of all arrays: integers if all of them are, text otherwise."""
    if not arrays:
        return pa.array([], pa.int64())
    filled = [array for array in arrays if len(array)] or [arrays[0]]
    if any(array.type == pa.string() for array in filled):
        filled = [pc.cast(array, pa.string()) for array in filled]
    return pc.unique(pa.chunked_array(filled))


def sort_ids(ids: pa.Array) -> pa.Array:
    """Return the ids in order: the contiguous id of each is its index."""
    return ids.take(pc.sort_indices(ids))


def encode_ids(
    column: pa.DictionaryArray, ids: pa.Array
) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    """Return the contiguous ids of a column (n,), (n,) int32.

    `ids`: the data's own ids, sorted.

    Raises:
        RuntimeError: if `ids` lacks one, because the files changed between the two passes.
    """
    # Of each distinct id once; the column refers to those by index.
    code = pc.index_in(pc.cast(column.dictionary, ids.type), value_set=ids)
    if code.null_count:
        raise RuntimeError("The source files changed while they were read. Start again.")
    codes: np.ndarray[tuple[int], np.dtype[np.int32]] = code.to_numpy()[column.indices.to_numpy()]
    return codes


@dataclass(frozen=True)
class Ids:
    """The data's own ids by contiguous id, and the titles of the items."""

    users: pa.Array
    items: pa.Array
    titles: pa.Array

    def take(self, users: IntArray, items: IntArray) -> "Ids":
        """Return the ids of some users and items, given by contiguous id."""
        return Ids(self.users.take(users), self.items.take(items), self.titles.take(items))


def write_ids(ids: Ids, target: Path) -> None:
    """Write `users.parquet` and `items.parquet`."""
    user = pa.array(np.arange(len(ids.users), dtype=np.int32))
    item = pa.array(np.arange(len(ids.items), dtype=np.int32))
    users = pa.table({"user": user, "user_id": ids.users})
    items = pa.table({"item": item, "item_id": ids.items, "title": ids.titles})
    for name, table in (("users", users), ("items", items)):
        with write_atomically(target / f"{name}.parquet") as file:
            pq.write_table(table, file, write_page_checksum=True)
