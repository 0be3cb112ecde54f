"""Histories of users who need not be in any processed data, read from a file of interactions.

A trained model folds them in. The file is read in this process, without Ray.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from recsys.config.sections import ColumnsConfig
from recsys.data.history import count_later
from recsys.data.interactions import Interactions
from recsys.data.negatives import index_pairs
from recsys.data.preprocessing.buckets import Rows, drop_duplicates
from recsys.data.preprocessing.ids import merge_ids
from recsys.data.preprocessing.time_encoding import TimeRange, choose_encoding, range_of
from recsys.data.readers.formats import list_fragments, read
from recsys.data.readers.fragments import Batch
from recsys.data.sources.files import DataFile
from recsys.data.sources.layouts import source_at
from recsys.errors import Argument, InputError
from recsys.kernels.arrays import IntArray

_PLACE = Argument("history")


@dataclass(frozen=True)
class Histories:
    """Histories of users.

    Attributes:
        user_ids: the users' own ids, an Arrow array (n_users,) of int64 or strings, in the order in
            which the file has them.
        interactions: their interactions with known items, by the index of the user. Nothing is held
            out.
        n_unknown: rows of the file with an item that is not known.
    """

    user_ids: pa.Array
    interactions: Interactions
    n_unknown: int


def read_histories(
    file: Path, columns: ColumnsConfig | None, threshold: float | None, item_ids: pa.Array
) -> Histories:
    """Read the histories in a file, of any format that `data.source` may have.

    Of several rows of a user and an item the latest counts, and at the same time the last in the
    file. Without times, the rows are in their order.

    Args:
        file: the file.
        columns: the columns of the data that the items are from, which the file has too.
        threshold: least rating of a positive; None if every row is one.
        item_ids: the items' own ids by contiguous id.

    Raises:
        InputError: if the file cannot be read, has no row or breaks a rule of the data.
    """
    source = source_at(str(file), _PLACE)
    if source.split_given:
        found = f"{file} holds {' and '.join(source.splits)}"
        raise InputError(_PLACE, "must hold one split", found=found, remedy="Name one file.")
    without_titles = (columns or ColumnsConfig()).model_copy(update={"title": "none"})
    file_batches = [
        (fragment.file, batch)
        for fragment in list_fragments(source, without_titles)
        for batch in read(fragment, threshold)
        if len(batch.order)
    ]
    if not file_batches:
        raise InputError(
            _PLACE, "must hold interactions", found=f"{file} has no row", remedy="Add some."
        )
    batches = [batch for _, batch in file_batches]
    user_ids = merge_ids([_ids_of(batch.user) for batch in batches])
    order = np.concatenate([batch.order for batch in batches])
    times = _times(file_batches)
    rows = Rows(
        user=np.concatenate([_codes(batch.user, user_ids) for batch in batches]),
        item=np.concatenate([_codes(batch.item, item_ids) for batch in batches]),
        positive=np.concatenate([batch.positive for batch in batches]),
        time=order if times is None else times,
        order=order,
        split=np.zeros(len(order), dtype=np.int8),
    )
    known = rows.take(rows.item >= 0)
    interactions = _interactions(known, len(user_ids), len(item_ids))
    return Histories(user_ids, interactions, n_unknown=len(rows) - len(known))


def _ids_of(column: pa.DictionaryArray) -> pa.Array:
    """Return the ids that occur in a column, each once."""
    return column.dictionary.take(pc.unique(column.indices))


def _codes(column: pa.DictionaryArray, ids: pa.Array) -> IntArray:
    """Return the index of each id (n,) in `ids`, -1 for one that is not among them, (n,) int32."""
    own, values = column.dictionary, ids
    if own.type != ids.type:
        own, values = pc.cast(own, pa.string()), pc.cast(ids, pa.string())
    codes = pc.fill_null(pc.index_in(own, value_set=values), -1).to_numpy()
    found: npt.NDArray[np.int32] = codes[column.indices.to_numpy()]
    return found


def _times(file_batches: Sequence[tuple[DataFile, Batch]]) -> IntArray | None:
    """Return times (n,) int64 that order as those of the rows, None if there are none.

    Raises:
        InputError: if only some of the files have times, or if they do not compare.
    """
    ranges: dict[tuple[DataFile, bool], TimeRange] = {}
    times, timeless = [], None
    for file, batch in file_batches:
        if batch.time is None:
            timeless = file
            continue
        times.append(batch.time)
        key, found = (file, batch.time.is_date), range_of(file, batch.time)
        ranges[key] = ranges[key] | found if key in ranges else found
    if not times:
        return None
    if timeless is not None:
        (first, _), *_ = ranges
        raise InputError(
            timeless.label,
            f"must have times like {first.label}",
            found="has no column with times",
            remedy="Add it.",
        )
    encoding = choose_encoding(list(ranges.values()))
    assert encoding is not None
    return np.concatenate([encoding.encode(time) for time in times])


def _interactions(rows: Rows, n_users: int, n_items: int) -> Interactions:
    """Return rows (n,) of known items as interactions to train on."""
    rows, _, _ = drop_duplicates(rows, n_items)
    liked, low = rows.take(rows.positive), rows.take(~rows.positive)
    return Interactions(
        n_users=n_users,
        n_items=n_items,
        user=liked.user,
        item=liked.item,
        negatives=None,
        low_user=low.user,
        low_item=low.item,
        seen=index_pairs(rows.user, rows.item, n_users, n_items),
        held_out=None,
        n_later=count_later(liked.user, liked.time),
    )
