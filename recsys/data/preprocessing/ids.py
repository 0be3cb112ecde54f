"""Ids of users and items: the data's own, and contiguous ones in their order."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


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
