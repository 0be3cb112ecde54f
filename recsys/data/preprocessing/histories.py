"""Histories of users who need not be in any processed data, read from a file of interactions.

A trained model folds them in. The file is read in this process, without Ray.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from recsys.config.sections import DataConfig
from recsys.data.history import count_later
from recsys.data.interactions import Interactions
from recsys.data.negatives import index_pairs
from recsys.data.preprocessing.buckets import Rows, drop_duplicates
from recsys.data.preprocessing.ids import merge_ids
from recsys.data.preprocessing.time_encoding import choose_encoding, range_of
from recsys.data.readers.formats import list_fragments, read
from recsys.data.readers.fragments import Batch
from recsys.data.sources.files import DataFile
from recsys.data.sources.layouts import source_at
from recsys.errors import Argument, InputError
from recsys.kernels.arrays import IntArray


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


def read_histories(file: Path, data: DataConfig, item_ids: pa.Array) -> Histories:
    """Read the histories in a file, of any format that `data.source` may have.

    The columns and the threshold of positives are those of `data`. Of several rows of a user and an
    item the last one counts. Without times, the rows are in their order.

    Args:
        file: the file.
        data: the settings of the data that the items are from.
        item_ids: the items' own ids by contiguous id.

    Raises:
        InputError: if the file cannot be read or breaks a rule of the data.
    """
    source = source_at(str(file), Argument("history"))
    if source.split_given:
        found = f"{file} holds {' and '.join(source.splits)}"
        raise InputError(
            Argument("history"), "must hold one split", found=found, remedy="Name one file."
        )
    threshold = None if source.all_positive else data.positive_threshold
    read_batches = [
        (fragment.file, batch)
        for fragment in list_fragments(source, data.columns)
        for batch in read(fragment, threshold)
    ]
    batches = [batch for _, batch in read_batches]
    user_ids = merge_ids([batch.user.dictionary for batch in batches])
    user, item = (
        np.concatenate([_codes(column, ids) for column in columns])
        for columns, ids in (
            ([batch.user for batch in batches], user_ids),
            ([batch.item for batch in batches], item_ids),
        )
    )
    order = np.concatenate([batch.order for batch in batches])
    positive = np.concatenate([batch.positive for batch in batches])
    rows = Rows(user, item, positive, _times(read_batches, order), order, np.zeros_like(user))
    known = rows.take(item >= 0)
    return Histories(
        user_ids, _interactions(known, len(user_ids), len(item_ids)), len(rows) - len(known)
    )


def _codes(column: pa.DictionaryArray, ids: pa.Array) -> IntArray:
    """Return the index of each id in `ids`, -1 for one that is not among them, (n,) int32."""
    own, values = column.dictionary, ids
    if own.type != ids.type:
        own, values = pc.cast(own, pa.string()), pc.cast(ids, pa.string())
    codes = pc.fill_null(pc.index_in(own, value_set=values), -1).to_numpy()
    found: npt.NDArray[np.int32] = codes[column.indices.to_numpy()]
    return found


def _times(batches: list[tuple[DataFile, Batch]], order: IntArray) -> IntArray:
    """Return times (n,) that order the rows: those of the file, or their order in it."""
    times = [(file, batch.time) for file, batch in batches if batch.time is not None]
    encoding = choose_encoding([range_of(file, time) for file, time in times])
    if encoding is None or len(times) < len(batches):
        return order
    return np.concatenate([encoding.encode(time) for _, time in times])


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
