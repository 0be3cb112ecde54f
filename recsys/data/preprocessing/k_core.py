"""Rounds of filtering until every user and item left has enough interactions: a k-core of the data.

They run between the second pass and the output, one task per bucket in each round. They also count
the times of the interactions, from which the temporal split chooses its cuts.
"""

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from recsys.config.schema import Config
from recsys.data.preprocessing.buckets import Bucket, Rows, read_bucket, replace_rows
from recsys.data.preprocessing.tasks import Run
from recsys.kernels.arrays import IntArray

MAX_TIMES = 1 << 17
"""Distinct times up to which a bucket counts each. Beyond, neighbours are merged, and a cut in time
is off by at most this share of the bucket's interactions."""


@dataclass(frozen=True)
class FilteredBucket:
    """Counts of a bucket after a round.

    Attributes:
        n_duplicates: rows that were dropped because the same split has a later one of their pair.
        n_overlaps: rows that were dropped because a later split has one of their pair.
        item_counts: interactions of each item that are left here, (n_items,) int64.
        users: users that are left, (m,) int32.
        times: distinct times in order, (t,) int64.
        time_counts: interactions at each time, (t,) int64.
    """

    n_duplicates: int
    n_overlaps: int
    item_counts: IntArray
    users: IntArray
    times: IntArray
    time_counts: IntArray


@dataclass(frozen=True)
class Core:
    """The users, items and times that the rounds leave.

    Attributes:
        users: contiguous ids of the second pass, (n_users,), sorted.
        items: contiguous ids of the second pass, (n_items,), sorted.
        counts: `n_duplicates` and `n_overlaps` of all rounds.
        times: distinct times in order, (t,) int64.
        time_counts: interactions at each time, (t,) int64.
    """

    users: IntArray
    items: IntArray
    counts: Counter[str]
    times: IntArray
    time_counts: IntArray


def find_core(run: Run, config: Config, work: Path, n_items: int, n_buckets: int) -> Core:
    """Filter the buckets in `work` until nothing changes, and return what is left.

    Each round drops duplicates, then the items that had too few interactions after the previous
    round, then the users that have too few.
    """
    items_left = np.ones(n_items, dtype=bool)
    counts: Counter[str] = Counter()
    while True:
        buckets = run(
            n_buckets, _filter_bucket, work, items_left, config.data.min_user_interactions
        )
        counts["n_duplicates"] += sum(bucket.n_duplicates for bucket in buckets)
        counts["n_overlaps"] += sum(bucket.n_overlaps for bucket in buckets)
        item_counts = np.sum([bucket.item_counts for bucket in buckets], axis=0)
        items_left = item_counts >= config.data.min_item_interactions
        if np.array_equal(items_left, item_counts > 0):
            break
    times, index = np.unique(
        np.concatenate([bucket.times for bucket in buckets]), return_inverse=True
    )
    time_counts = np.bincount(
        index, weights=np.concatenate([bucket.time_counts for bucket in buckets])
    ).astype(np.int64)
    users = np.concatenate([bucket.users for bucket in buckets])
    return Core(users, np.flatnonzero(items_left), counts, times, time_counts)


def _filter_bucket(
    number: int, folder: Path, items_left: npt.NDArray[np.bool_], min_user_interactions: int
) -> FilteredBucket:
    """Rewrite a bucket without duplicates, other items, and users with too few interactions.

    It may run twice: a task that died half-way leaves duplicates at most.
    """
    bucket = read_bucket(folder, number, len(items_left))
    rows = bucket.rows.take(items_left[bucket.rows.item])
    users, counts = np.unique(rows.user, return_counts=True)
    users = users[counts >= min_user_interactions]
    rows = rows.take(np.isin(rows.user, users))
    replace_rows(replace(bucket, rows=rows), folder, number)
    times, time_counts = _merge_times(*np.unique(rows.time, return_counts=True))
    item_counts = np.bincount(rows.item, minlength=len(items_left))
    return FilteredBucket(
        bucket.n_duplicates, bucket.n_overlaps, item_counts, users, times, time_counts
    )


def _merge_times(times: IntArray, counts: IntArray) -> tuple[IntArray, IntArray]:
    """Return at most MAX_TIMES times and their counts: of neighbours that are merged, the first."""
    if len(times) <= MAX_TIMES:
        return times, counts
    starts = np.linspace(0, len(times), MAX_TIMES, endpoint=False).astype(np.int64)
    return times[starts], np.add.reduceat(counts, starts)


def recode_bucket(bucket: Bucket, user_code: IntArray, item_code: IntArray) -> Bucket:
    """Return the bucket with new contiguous ids.

    `user_code`, `item_code`: the new id by old id, -1 if it was removed. Rows of removed users
    are dropped. A removed item becomes -1; only candidates can have one.
    """
    return replace(
        bucket,
        rows=_recode(bucket.rows, user_code, item_code),
        candidates=_recode(bucket.candidates, user_code, item_code),
    )


def _recode(rows: Rows, user_code: IntArray, item_code: IntArray) -> Rows:
    rows = rows.take(user_code[rows.user] >= 0)
    return replace(rows, user=user_code[rows.user], item=item_code[rows.item])


def new_codes(left: IntArray, n: int) -> IntArray:
    """Return the new contiguous id by old id, -1 for those not in `left`, (n,) int32."""
    codes = np.full(n, -1, dtype=np.int32)
    codes[left] = np.arange(len(left), dtype=np.int32)
    return codes
