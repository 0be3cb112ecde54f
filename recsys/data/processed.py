"""Processed data on disk: the pipeline writes them, and every later step reads them.

A folder `processed/<fingerprint>` holds `manifest.json`, `users.parquet` and `items.parquet` (the
data's own ids by contiguous id, and titles). The interactions are in files, one for each bucket of
users and each of these kinds; empty files are left out:

- `train`, `validation`, `test`: the positives of a split;
- `train_low`, `validation_low`, `test_low`: its low ratings;
- `validation_cold`, `test_cold`: its positives of users without one in an earlier split;
- `validation_given`, `test_given`: its positives that are given, of users who are held out whole.

If the data have times, the files of `train`, `validation`, `validation_cold` and of the given
positives have them too.

Nothing here imports ray.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from recsys.data.history import count_later, count_recent
from recsys.data.interactions import Given, HeldOut, Interactions
from recsys.data.manifest import Manifest
from recsys.data.negatives import UserItemIndex, index_pairs
from recsys.data.plain_types import require_plain
from recsys.data.splits import HELD_OUT_SPLITS, HeldOutSplit
from recsys.errors import InputError
from recsys.kernels.arrays import IntArray

_COLUMNS = pa.schema({"user": pa.int32(), "item": pa.int32(), "time": pa.int64()})
_PAIR = ["user", "item"]


@dataclass(frozen=True)
class Processed:
    """A complete folder of processed data."""

    path: Path
    fingerprint: str
    manifest: Manifest


def load(processed: Processed, split: HeldOutSplit, negatives: bool) -> Interactions:
    """Read the data in memory to train and to rank a held-out split.

    For "validation", training has train alone; for "test", train and validation. Files of later
    splits are not opened. Users of `split` who are held out whole have given interactions.

    Args:
        processed: the folder to read.
        split: the split that is held out.
        negatives: whether to read the fixed negatives of training. "test" has none.

    Raises:
        InputError: if a file is damaged.
    """
    n_users, n_items = processed.manifest.n_users, processed.manifest.n_items
    with_negatives, has_times = negatives and split == "validation", processed.manifest.has_times
    kinds, low_kinds = ["train"], ["train_low"]
    if split == "test":
        kinds += ["validation", "validation_cold", "validation_given"]
        low_kinds += ["validation_low"]
    columns = [*_PAIR, *["time"] * has_times, *["negatives"] * with_negatives]
    train = _read(processed, kinds, columns)
    low = _read(processed, low_kinds)
    if split == "test":
        by_pair = [(name, "ascending") for name in _PAIR]
        train, low = train.sort_by(by_pair), low.sort_by(by_pair)
    (user, item), (low_user, low_item) = _pairs(train), _pairs(low)
    time = train["time"].to_numpy() if has_times else None
    is_trained = np.bincount(user, minlength=n_users) > 0
    given = _load_given(processed, split) if processed.manifest.holds_out_users else None
    seen_user, seen_item = np.r_[user, low_user], np.r_[item, low_item]
    if given is not None:
        seen_user = np.r_[seen_user, given.user, given.low_user]
        seen_item = np.r_[seen_item, given.item, given.low_item]
    return Interactions(
        n_users=n_users,
        n_items=n_items,
        user=user,
        item=item,
        negatives=_matrix(train, "negatives") if with_negatives else None,
        low_user=low_user,
        low_item=low_item,
        seen=index_pairs(seen_user, seen_item, n_users, n_items),
        held_out=_load_held_out(processed, split, is_trained),
        n_later=None if time is None else count_later(user, time),
        n_recent=None if time is None else count_recent(item, time, n_items),
        given=given,
    )


def _load_given(processed: Processed, split: HeldOutSplit) -> Given:
    """Read the given interactions of users who are held out whole. All low ratings are given."""
    has_times = processed.manifest.has_times
    positives = _read(processed, [f"{split}_given"], [*_PAIR, *["time"] * has_times])
    user, item = _pairs(positives)
    low_user, low_item = _pairs(_read(processed, [f"{split}_low"]))
    n_later = count_later(user, positives["time"].to_numpy()) if has_times else None
    return Given(user, item, low_user, low_item, n_later)


def _load_held_out(
    processed: Processed, split: HeldOutSplit, is_trained: npt.NDArray[np.bool_]
) -> HeldOut:
    """Read a held-out split. `is_trained` (n_users,): users with a training positive."""
    positives = _read(processed, [split], None)
    user, item = _pairs(positives)
    low_user, low_item = _pairs(_read(processed, [f"{split}_low"]))
    is_kept = is_trained[low_user]
    return HeldOut(
        user=user,
        item=item,
        low_user=low_user[is_kept],
        low_item=low_item[is_kept],
        negatives=_matrix(positives, "negatives"),
        candidates=_matrix(positives, "candidates"),
    )


def all_pairs(processed: Processed) -> UserItemIndex:
    """Return the positives and low ratings of each user in every split."""
    kinds = [
        "train",
        "train_low",
        *(
            f"{split}{kind}"
            for split in HELD_OUT_SPLITS
            for kind in ("", "_low", "_cold", "_given")
        ),
    ]
    user, item = _pairs(_read(processed, kinds))
    return index_pairs(user, item, processed.manifest.n_users, processed.manifest.n_items)


def user_ids(processed: Processed) -> pa.Array:
    """Return the data's own user ids by contiguous id: int64 or string."""
    return _column(processed, "users", "user_id")


def item_ids(processed: Processed) -> pa.Array:
    """Return the data's own item ids by contiguous id: int64 or string."""
    return _column(processed, "items", "item_id")


def item_titles(processed: Processed) -> pa.Array:
    """Return the items' titles by contiguous id, null for items without one."""
    return _column(processed, "items", "title")


def _column(processed: Processed, name: str, column: str) -> pa.Array:
    return _read_file(processed.path / f"{name}.parquet", [column])[column].combine_chunks()


def _read(
    processed: Processed, kinds: Sequence[str], columns: list[str] | None = _PAIR
) -> pa.Table:
    """Return the rows of some kinds of files, one bucket after another for each kind.

    `columns`: those to read, all if None.
    """
    names = [
        name
        for kind in kinds
        for name in sorted(processed.manifest.files)
        if name.startswith(f"{kind}-")
    ]
    return pa.concat_tables(
        [_read_file(processed.path / name, columns) for name in names] or [_COLUMNS.empty_table()]
    )


def _read_file(path: Path, columns: list[str] | None) -> pa.Table:
    try:
        table = pq.read_table(
            path, columns=columns, page_checksum_verification=True, partitioning=None
        )
    except (OSError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            path,
            "must be a whole Parquet file",
            found=f"is damaged ({reason})",
            remedy="Delete its folder to prepare the data again.",
        ) from None
    require_plain(table.schema, table.column_names, str(path))
    return table


def _pairs(table: pa.Table) -> tuple[IntArray, IntArray]:
    return table["user"].to_numpy(), table["item"].to_numpy()


def _matrix(table: pa.Table, name: str) -> IntArray | None:
    """Return a column of lists of one length as (n, length) int32, None if there is none."""
    if name not in table.column_names:
        return None
    lists = table[name].combine_chunks()
    values: IntArray = lists.flatten().to_numpy()
    return values.reshape(len(lists), lists.type.list_size)
