"""The steps of the pipeline between the first walk and the files, each over all fragments or all buckets at a time.

`run` executes `task(0)`, ..., `task(n - 1)` somewhere and returns the results in order: Ray Data in the pipeline.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recsys.config.schema import Config
from recsys.data.negatives import IntArray
from recsys.data.preprocessing.bucket_files import BucketResult, Plan, write_bucket
from recsys.data.preprocessing.buckets import (
    Rows,
    Settled,
    bucket_of,
    get_bucket,
    put_rows,
    recode,
    settle,
)
from recsys.data.preprocessing.clock import Clock
from recsys.data.preprocessing.scan import codes_of
from recsys.data.preprocessing.split_strategies import temporal_cut
from recsys.data.readers.formats import read
from recsys.data.readers.fragments import Fragment
from recsys.errors import InputError


class Run(Protocol):
    """How tasks are executed."""

    def __call__(self, n: int, task: Any, *shared: Any) -> list[Any]:
        """The results of `task(number, *shared)` for each number below `n`, in order."""


def encode(
    run: Run,
    *,
    fragments: Sequence[Fragment],
    threshold: float | None,
    ids: tuple[pa.Array, pa.Array],
    clock: Clock | None,
    work: Path,
    n_buckets: int,
) -> None:
    """Second walk: lay every row down in its user's bucket, with contiguous ids. `ids`: sorted user and item ids.

    `clock`: how times become integers, None where no file has times.
    """

    def task(number: int, users: pa.Array, items: pa.Array) -> None:
        fragment = fragments[number]
        for position, batch in enumerate(read(fragment, threshold)):
            user = codes_of(batch.user, users)
            part = np.full(len(user), fragment.split, dtype=np.int8)
            time = (
                np.zeros(len(user), dtype=np.int64)
                if clock is None or batch.time is None
                else clock.ticks(batch.time)
            )
            rows = Rows(user, codes_of(batch.item, items), batch.positive, time, batch.order, part)
            put_rows(
                rows,
                bucket_of(user, len(users), n_buckets),
                work,
                f"{number:06d}-{position:06d}",
                n_buckets,
            )

    run(len(fragments), task, *ids)


@dataclass(frozen=True)
class Core:
    """What rounds of `settle` have left: sorted contiguous ids of the first encoding, counts, and times."""

    users: IntArray
    items: IntArray
    counts: Counter[str]
    times: IntArray
    time_counts: IntArray


def find_core(run: Run, config: Config, work: Path, n_items: int, n_buckets: int) -> Core:
    """Drop duplicates, then users and items with too few interactions, again and again until nothing changes."""
    items_left = np.ones(n_items, dtype=bool)
    counts: Counter[str] = Counter()
    while True:
        buckets = run(n_buckets, _settle, work, items_left, config.data.min_user_interactions)
        counts["n_duplicates"] += sum(bucket.n_duplicates for bucket in buckets)
        counts["n_overlaps"] += sum(bucket.n_overlaps for bucket in buckets)
        item_counts = np.sum([bucket.item_counts for bucket in buckets], axis=0)
        items_left = item_counts >= config.data.min_item_interactions
        if np.array_equal(items_left, item_counts > 0):
            break
    times, place = np.unique(
        np.concatenate([bucket.times for bucket in buckets]), return_inverse=True
    )
    time_counts = np.bincount(
        place, weights=np.concatenate([bucket.time_counts for bucket in buckets])
    ).astype(np.int64)
    users = np.concatenate([bucket.users for bucket in buckets])
    return Core(users, np.flatnonzero(items_left), counts, times, time_counts)


def find_cuts(core: Core, config: Config) -> tuple[int, int]:
    """The times from which validation and test start."""
    test = temporal_cut(core.times, core.time_counts, config.data.test_fraction)
    rest = np.zeros(len(core.times), dtype=bool) if test is None else core.times < test
    validation = temporal_cut(
        core.times[rest], core.time_counts[rest], config.data.validation_fraction
    )
    if test is None or validation is None:
        raise InputError(
            "data.split",
            "temporal needs at least 3 different times",
            f"{len(core.times)}",
            "Set data.split to random.",
        )
    return validation, test


def write(
    run: Run,
    *,
    plan: Plan,
    core: Core | None,
    work: Path,
    target: Path,
    n_buckets: int,
    n_read: tuple[int, int],
) -> BucketResult:
    """Split every bucket and write its files; the sum of the results. `n_read`: users and items of the first encoding."""
    n_users_read, n_items_read = n_read
    codes = None
    if core is not None:
        codes = _new_codes(core.users, n_users_read), _new_codes(core.items, n_items_read)

    def task(number: int) -> BucketResult:
        bucket = get_bucket(work, number, n_items_read)
        if codes is not None:
            bucket = replace(
                bucket,
                rows=recode(bucket.rows, *codes),
                candidates=recode(bucket.candidates, *codes),
            )
        return write_bucket(bucket, plan, target, number)

    total = BucketResult(Counter(core.counts) if core is not None else Counter())
    for result in run(n_buckets, task):
        total.counts += result.counts
        total.saturated += result.saturated
        total.short += result.short
        total.unmatched += result.unmatched
    return total


def _settle(
    number: int, work: Path, items_left: npt.NDArray[np.bool_], min_user_interactions: int
) -> Settled:
    return settle(work, number, items_left, min_user_interactions)


def _new_codes(left: IntArray, n: int) -> IntArray:
    """Old contiguous id -> new one, -1 where it is gone, (n,) int32."""
    codes = np.full(n, -1, dtype=np.int32)
    codes[left] = np.arange(len(left), dtype=np.int32)
    return codes
