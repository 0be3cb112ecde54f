"""All work on one bucket: a contiguous range of users, each whole, with all that they did.

The second walk over the data lays encoded rows down by bucket (`put_rows`); tasks then take a bucket each, drop duplicates and,
where asked, users and items with too few interactions (`settle`), and write the processed files (`write_bucket`).
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recsys.cluster.shared_paths import require_on_this_node
from recsys.data.negatives import IntArray
from recsys.data.readers.candidates import POSITION_BITS
from recsys.data.readers.fragments import CANDIDATES
from recsys.storage.files import write_atomically
from recsys.storage.s3 import delete_local_copy, fetch_folder, list_folder, remove

COLUMNS = {
    "user": pa.int32(),
    "item": pa.int32(),
    "positive": pa.bool_(),
    "time": pa.int64(),
    "order": pa.int64(),
    "part": pa.int8(),
}


@dataclass(frozen=True)
class Rows:
    """Encoded rows, (n,) each: `user`, `item` int32, `positive` bool, `time` int64, `order` int64, `part` int8.

    `time` orders as the times of the source do (`clock`); 0 where there are none.
    """

    user: IntArray
    item: IntArray
    positive: npt.NDArray[np.bool_]
    time: IntArray
    order: IntArray
    part: IntArray

    def __len__(self) -> int:
        return len(self.user)

    def take(self, index: npt.NDArray[np.bool_] | IntArray | slice) -> "Rows":
        """The rows at an index, a mask or a slice."""
        return Rows(*(getattr(self, name)[index] for name in COLUMNS))


def bucket_of(user: IntArray, n_users: int, n_buckets: int) -> IntArray:
    """The bucket of each user: ranges of users of nearly one width."""
    return user.astype(np.int64) * n_buckets // n_users


def put_rows(rows: Rows, bucket: IntArray, folder: Path, name: str, n_buckets: int) -> None:
    """Append rows to their buckets: one file `folder/<bucket>/<name>.arrow` for each bucket that has any.

    Raises:
        InputError: if this node does not see the folder.
    """
    require_on_this_node(folder)
    order = np.argsort(bucket, kind="stable") if n_buckets > 1 else slice(None)
    ends = np.cumsum(np.bincount(bucket, minlength=n_buckets))
    rows = rows.take(order)
    for number, (start, end) in enumerate(zip(np.r_[0, ends[:-1]], ends, strict=True)):
        if end > start:
            _write_rows(
                rows.take(slice(start, end)), folder / bucket_name(number) / f"{name}.arrow"
            )


def bucket_name(number: int) -> str:
    """A bucket's name in folders and files."""
    return f"{number:05d}"


def _write_rows(rows: Rows, path: Path) -> None:
    table = pa.table({name: pa.array(getattr(rows, name), kind) for name, kind in COLUMNS.items()})
    with (
        write_atomically(path) as temporary,
        pa.OSFile(str(temporary), "wb") as sink,
        pa.ipc.new_file(sink, table.schema) as writer,
    ):
        writer.write_table(table)
    delete_local_copy(path)


@dataclass(frozen=True)
class Bucket:
    """A bucket's interactions, each pair once, sorted by user and item, and its candidates as they were read."""

    rows: Rows
    candidates: Rows
    n_duplicates: int
    n_overlaps: int


def get_bucket(folder: Path, number: int, n_items: int) -> Bucket:
    """Read a bucket and drop duplicates of (user, item).

    Of several rows of a pair the one in the latest part stays, of those the latest by time, of those the last in file order.
    """
    require_on_this_node(folder)
    fetch_folder(folder / bucket_name(number))
    paths = sorted((folder / bucket_name(number)).glob("*.arrow"))
    tables = [pa.ipc.open_file(pa.memory_map(str(path))).read_all() for path in paths]
    delete_local_copy(folder / bucket_name(number))  # it stays mapped
    schema = pa.schema(list(COLUMNS.items()))
    table = pa.concat_tables([schema.empty_table(), *tables]).combine_chunks()
    rows = Rows(*(table[name].to_numpy() for name in COLUMNS))
    is_candidate = rows.part == CANDIDATES
    candidates = rows.take(is_candidate)
    if len(candidates):
        rows = rows.take(~is_candidate)
    key = rows.user * np.int64(n_items) + rows.item
    order = np.argsort(key)
    rows, key = rows.take(order), key[order]
    keep = np.ones(len(rows), dtype=bool)
    repeats = np.flatnonzero(key[1:] == key[:-1])
    n_overlaps = 0
    if len(repeats):
        several = np.union1d(repeats, repeats + 1)
        ranked = several[
            np.lexsort((rows.order[several], rows.time[several], rows.part[several], key[several]))
        ]
        last = np.r_[key[ranked[1:]] != key[ranked[:-1]], True]
        winner = ranked[np.flatnonzero(last)[np.cumsum(np.r_[0, last[:-1]])]]
        keep[ranked[~last]] = False
        n_overlaps = int((rows.part[ranked] != rows.part[winner]).sum())
    n_duplicates = int(len(keep) - keep.sum()) - n_overlaps
    return Bucket(rows if keep.all() else rows.take(keep), candidates, n_duplicates, n_overlaps)


@dataclass(frozen=True)
class Settled:
    """What a bucket tells after a round of `settle`.

    `item_counts` (n_items,) int64: interactions of each item that are left here. `users` (m,): users that are left.
    `times`, `time_counts` (t,): distinct times, ascending, and interactions at each; thinned where there are very many.
    """

    n_duplicates: int
    n_overlaps: int
    item_counts: IntArray
    users: IntArray
    times: IntArray
    time_counts: IntArray


MAX_TIMES = 1 << 17
"""Distinct times that a bucket tells exactly; beyond, a cut in time is off by at most this share of its interactions."""


def settle(
    folder: Path, number: int, items_left: npt.NDArray[np.bool_], min_user_interactions: int
) -> Settled:
    """Rewrite a bucket as one file: duplicates gone, then interactions of items not left, then users with too few.

    Repeating it is harmless, so that a round that died half-way can be run again.
    """
    bucket = get_bucket(folder, number, len(items_left))
    rows = bucket.rows.take(items_left[bucket.rows.item])
    users, counts = np.unique(rows.user, return_counts=True)
    users = users[counts >= min_user_interactions]
    rows = rows.take(np.isin(rows.user, users))
    old = [
        folder / bucket_name(number) / name
        for name in list_folder(folder / bucket_name(number))
        if name.endswith(".arrow")
    ]
    both = Rows(*(np.r_[getattr(rows, name), getattr(bucket.candidates, name)] for name in COLUMNS))
    # The whole file first: should the task die here, its rows stand twice and are merged as duplicates.
    settled = folder / bucket_name(number) / "settled.arrow"
    _write_rows(both, settled)
    for path in old:
        if path != settled:
            remove(path)
    times, time_counts = _thin(*np.unique(rows.time, return_counts=True))
    counts = np.bincount(rows.item, minlength=len(items_left))
    return Settled(bucket.n_duplicates, bucket.n_overlaps, counts, users, times, time_counts)


def _thin(times: IntArray, counts: IntArray) -> tuple[IntArray, IntArray]:
    """Merge neighbouring times so that at most MAX_TIMES are left."""
    if len(times) <= MAX_TIMES:
        return times, counts
    starts = np.linspace(0, len(times), MAX_TIMES, endpoint=False).astype(np.int64)
    return times[starts], np.add.reduceat(counts, starts)


def recode(rows: Rows, user_code: IntArray, item_code: IntArray) -> Rows:
    """The rows with new contiguous ids, old id -> new id or -1; an item that is gone becomes -1, a user's rows go."""
    rows = rows.take(user_code[rows.user] >= 0)
    return replace(rows, user=user_code[rows.user], item=item_code[rows.item])


@dataclass(frozen=True)
class GivenCandidates:
    """The data's own candidates by held-out pair: `key` (p,) int64 sorted, user * n_items + item; `items` (p, c), -1 absent."""

    key: IntArray
    items: IntArray


def given_candidates(rows: Rows, n_items: int, width: int) -> GivenCandidates:
    """Candidate rows as one line a held-out pair; the held-out item itself, where it is among them, is left out as -1."""
    # Each row once: a round of `settle` that was run again may have left some twice.
    rows = rows.take(np.unique(rows.order, return_index=True)[1])
    position = rows.order & ((1 << POSITION_BITS) - 1)
    line = np.cumsum(position == 0) - 1
    target = rows.item[position == 0]
    items = np.full((len(target), width), -1, dtype=np.int32)
    is_candidate = position > 0
    items[line[is_candidate], position[is_candidate] - 1] = rows.item[is_candidate]
    items[items == target[:, None]] = -1
    key = np.where(target < 0, -1, rows.user[position == 0] * np.int64(n_items) + target)
    order = np.argsort(key, kind="stable")
    return GivenCandidates(key[order], items[order])
