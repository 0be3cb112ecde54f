"""Buckets on disk: encoded rows by range of users, between the second pass and the output.

The second pass appends rows to the buckets of their users (`add_rows`). Later tasks read one bucket
each, without its duplicates (`read_bucket`). A bucket holds all rows of its users, so it can be
filtered, split and written on its own.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recsys.cluster.shared_paths import require_on_this_node
from recsys.data.readers.fragments import CANDIDATES
from recsys.kernels.arrays import IntArray
from recsys.storage.files import write_atomically
from recsys.storage.s3 import delete_local_copy, fetch_folder, list_folder, remove

COLUMNS = {
    "user": pa.int32(),
    "item": pa.int32(),
    "positive": pa.bool_(),
    "time": pa.int64(),
    "order": pa.int64(),
    "split": pa.int8(),
}


@dataclass(frozen=True)
class Rows:
    """Encoded rows, (n,) each.

    Attributes:
        user: contiguous user ids, int32.
        item: contiguous item ids, int32; -1 for a candidate that a k-core removed.
        positive: whether the rating reaches the threshold, bool.
        time: encoded times, which order as those of the source (`time_encoding`), int64; 0 without.
        order: order in the source, int64.
        split: code of the split that the source gives, or CANDIDATES, int8.
    """

    user: IntArray
    item: IntArray
    positive: npt.NDArray[np.bool_]
    time: IntArray
    order: IntArray
    split: IntArray

    def __len__(self) -> int:
        return len(self.user)

    def take(self, index: npt.NDArray[np.bool_] | IntArray | slice) -> "Rows":
        """Return the rows at an index, a mask or a slice."""
        return Rows(*(getattr(self, name)[index] for name in COLUMNS))


@dataclass(frozen=True)
class Bucket:
    """Rows of a bucket.

    Attributes:
        rows: interactions, each pair of user and item once, sorted by user and item.
        candidates: rows of the data's own candidate file, as they were read.
        n_duplicates: rows that were dropped because the same split has a later one of their pair.
        n_overlaps: rows that were dropped because a later split has one of their pair.
    """

    rows: Rows
    candidates: Rows
    n_duplicates: int
    n_overlaps: int


def bucket_of(user: IntArray, n_users: int, n_buckets: int) -> IntArray:
    """Return the bucket of each user (n,): the buckets' ranges differ by at most one user."""
    return user.astype(np.int64) * n_buckets // n_users


def bucket_name(number: int) -> str:
    """Return the name of a bucket in folders and files."""
    return f"{number:05d}"


def add_rows(rows: Rows, bucket: IntArray, folder: Path, name: str, n_buckets: int) -> None:
    """Write rows (n,) to their buckets (n,), a file `folder/<bucket>/<name>.arrow` for each.

    Raises:
        InputError: if this node does not see the folder.
    """
    require_on_this_node(folder)
    order = np.argsort(bucket, kind="stable") if n_buckets > 1 else slice(None)
    ends = np.cumsum(np.bincount(bucket, minlength=n_buckets))
    rows = rows.take(order)
    for number, (start, end) in enumerate(zip(np.r_[0, ends[:-1]], ends, strict=True)):
        if end > start:
            path = folder / bucket_name(number) / f"{name}.arrow"
            _write_rows(rows.take(slice(start, end)), path)


def replace_rows(bucket: Bucket, folder: Path, number: int) -> None:
    """Replace the files of a bucket by one with the rows and the candidates of `bucket`."""
    path = folder / bucket_name(number)
    old = [path / name for name in list_folder(path) if name.endswith(".arrow")]
    columns = (
        np.r_[getattr(bucket.rows, name), getattr(bucket.candidates, name)] for name in COLUMNS
    )
    # Write first: if the task dies before it has removed the old files, their rows are duplicates.
    filtered = path / "filtered.arrow"
    _write_rows(Rows(*columns), filtered)
    for file in old:
        if file != filtered:
            remove(file)


def _write_rows(rows: Rows, path: Path) -> None:
    table = pa.table({name: pa.array(getattr(rows, name), kind) for name, kind in COLUMNS.items()})
    with (
        write_atomically(path) as temporary,
        pa.OSFile(str(temporary), "wb") as sink,
        pa.ipc.new_file(sink, table.schema) as writer,
    ):
        writer.write_table(table)
    delete_local_copy(path)


def read_bucket(folder: Path, number: int, n_items: int) -> Bucket:
    """Read a bucket without duplicates of (user, item).

    Of each pair one row is kept: the one in the latest split; within a split the latest by time; at
    equal times the last in the source.
    """
    require_on_this_node(folder)
    path = folder / bucket_name(number)
    fetch_folder(path)
    tables = [
        pa.ipc.open_file(pa.memory_map(str(file))).read_all()
        for file in sorted(path.glob("*.arrow"))
    ]
    delete_local_copy(path)  # the files stay mapped
    empty = pa.schema(list(COLUMNS.items())).empty_table()
    table = pa.concat_tables([empty, *tables]).combine_chunks()
    rows = Rows(*(table[name].to_numpy() for name in COLUMNS))
    is_candidate = rows.split == CANDIDATES
    candidates = rows.take(is_candidate)
    if len(candidates):
        rows = rows.take(~is_candidate)
    rows, n_duplicates, n_overlaps = drop_duplicates(rows, n_items)
    return Bucket(rows, candidates, n_duplicates, n_overlaps)


def drop_duplicates(rows: Rows, n_items: int) -> tuple[Rows, int, int]:
    """Return the rows sorted by pair, each pair once, and how many were duplicates and overlaps."""
    key = rows.user * np.int64(n_items) + rows.item  # one number per pair
    order = np.argsort(key)
    rows, key = rows.take(order), key[order]
    repeats = np.flatnonzero(key[1:] == key[:-1])  # (r,): the next row has the same pair
    if len(repeats) == 0:
        return rows, 0, 0
    # Only the rows of repeated pairs (m,), usually few, are ranked: the last of each pair is kept.
    several = np.union1d(repeats, repeats + 1)
    by_rank = (rows.order[several], rows.time[several], rows.split[several], key[several])
    ranked = several[np.lexsort(by_rank)]
    is_last = np.r_[key[ranked[1:]] != key[ranked[:-1]], True]  # (m,)
    # The pair of each ranked row counts the pairs that ended before; with it, the row that is kept.
    pair = np.cumsum(np.r_[0, is_last[:-1]])  # (m,)
    kept = ranked[is_last][pair]  # (m,)
    n_overlaps = int((rows.split[ranked] != rows.split[kept]).sum())
    keep = np.ones(len(rows), dtype=bool)
    keep[ranked[~is_last]] = False
    n_dropped = int(len(keep) - keep.sum())
    return rows.take(keep), n_dropped - n_overlaps, n_overlaps
