"""The last step of the pipeline: one bucket's interactions, split and with their negatives, as files of the processed form."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recsys.cluster.shared_paths import require_on_this_node
from recsys.data.negatives import IntArray, NegativeSampler, index_pairs
from recsys.data.preprocessing.buckets import Bucket, Rows, bucket_name, given_candidates
from recsys.data.preprocessing.split_strategies import (
    Mask,
    cut_validation,
    leave_one_out,
    random_split,
    temporal_split,
)
from recsys.data.splits import TEST, TRAIN, VALIDATION
from recsys.storage.files import write_atomically
from recsys.storage.s3 import delete_local_copy


@dataclass(frozen=True)
class Plan:
    """What every bucket's task needs to know.

    `split`: "given_without_validation" cuts validation from the given train part. `has_times`: times tell an order.
    `validation_start`, `test_start`: cuts of a temporal split, 0 for others. `n_candidates`: candidates to draw for each
    held-out item, None for none. `n_candidates_given`: width of the data's own candidates of test, None without them.
    """

    n_users: int
    n_items: int
    split: Literal["leave_one_out", "random", "temporal", "given", "given_without_validation"]
    seed: int
    n_negatives: int
    has_times: bool
    test_fraction: float
    validation_fraction: float
    n_candidates: int | None
    n_candidates_given: int | None
    validation_start: int = 0
    test_start: int = 0


@dataclass
class BucketResult:
    """Counts of a bucket, and users (contiguous ids) that make the data unusable; with any of those nothing is written.

    `saturated`: users who interacted with every item. `short`: held-out users with fewer free items than candidates.
    `unmatched`: test users without a line in the data's candidate file.
    """

    counts: Counter[str] = field(default_factory=Counter)
    saturated: list[int] = field(default_factory=list)
    short: list[int] = field(default_factory=list)
    unmatched: list[int] = field(default_factory=list)


def write_bucket(bucket: Bucket, plan: Plan, folder: Path, number: int) -> BucketResult:
    """Split a bucket, draw its negatives and candidates, and write its files into `folder`."""
    rows = bucket.rows
    divided = _divide(rows, plan)
    result = BucketResult(Counter(n_duplicates=bucket.n_duplicates, n_overlaps=bucket.n_overlaps))
    result.counts["n_interactions"] = len(rows)
    result.counts["n_positives"] = int(rows.positive.sum())
    result.counts["n_low"] = len(rows) - result.counts["n_positives"]
    for name, code in (("n_cold_validation_users", VALIDATION), ("n_cold_users", TEST)):
        result.counts[name] = len(np.unique(rows.user[divided.cold & (divided.part == code)]))
    n_known = np.bincount(divided.local, minlength=divided.n_local)
    result.saturated = (divided.first + np.flatnonzero(n_known == plan.n_items)).tolist()
    if result.saturated:
        return result
    tables = _tables(bucket, divided, plan, np.random.default_rng([plan.seed, number]), result)
    if result.short or result.unmatched:
        return result
    require_on_this_node(folder)
    for name, table in tables.items():
        result.counts[f"n_{name}"] = table.num_rows
        if table.num_rows == 0:
            continue
        path = folder / f"{name}-{bucket_name(number)}.parquet"
        with write_atomically(path) as file:
            pq.write_table(
                table,
                file,
                compression="lz4",
                use_dictionary=False,
                write_statistics=False,
                write_page_checksum=True,
            )
        delete_local_copy(path)
    return result


@dataclass(frozen=True)
class _Divided:
    """How a bucket's rows, (n,) each, are divided.

    `train`: training positives. `cold`: held-out positives of users without a positive in an earlier part: in validation the
    search, in test final training has nothing to learn the user from. `local` (n,) int64: users counted from the bucket's
    `first`, so that the samplers' tables are no longer than the bucket.
    """

    part: IntArray
    train: Mask
    cold: Mask
    local: IntArray
    first: int
    n_local: int


def _divide(rows: Rows, plan: Plan) -> _Divided:
    part = _parts(rows, plan)
    first = int(rows.user[0]) if len(rows) else 0
    local = rows.user.astype(np.int64) - first
    n_local = int(local[-1]) + 1 if len(rows) else 0
    cold = np.zeros(len(rows), dtype=bool)
    for code in (VALIDATION, TEST):
        has_earlier = np.bincount(local[rows.positive & (part < code)], minlength=n_local) > 0
        cold |= rows.positive & (part == code) & ~has_earlier[local]
    return _Divided(part, rows.positive & (part == TRAIN), cold, local, first, n_local)


def _tables(
    bucket: Bucket, divided: _Divided, plan: Plan, random: np.random.Generator, result: BucketResult
) -> dict[str, pa.Table]:
    """Return the bucket's tables by kind of file; users for whom something cannot be drawn are added to `result`.

    What a part's draws leave out is known without the later parts, so that no row of test changes the search
    (docs/decisions/0002).
    """
    rows, part, local = bucket.rows, divided.part, divided.local

    def sampler(known: Mask) -> NegativeSampler:
        return NegativeSampler(
            index_pairs(local[known], rows.item[known], divided.n_local, plan.n_items)
        )

    negatives = sampler(part == TRAIN).sample(local[divided.train], plan.n_negatives, random)
    tables = {
        "train": _pairs(rows, divided.train, negatives=_lists(negatives, plan.n_negatives)),
        "train_low": _pairs(rows, ~rows.positive & (part == TRAIN)),
    }
    for name, code in (("validation", VALIDATION), ("test", TEST)):
        held_out = rows.positive & (part == code) & ~divided.cold
        user, lists, free = local[held_out], {}, sampler(part <= code)
        if plan.split == "random":
            lists["negatives"] = _lists(
                free.sample(user, plan.n_negatives, random), plan.n_negatives
            )
        if code == TEST and plan.n_candidates_given is not None:
            candidates, missing = _given_candidates(bucket, held_out, plan)
            result.unmatched += np.unique(rows.user[held_out][missing]).tolist()
            lists["candidates"] = _lists(candidates, plan.n_candidates_given)
        elif plan.n_candidates is not None:
            enough = free.lines.mass[user] >= plan.n_candidates
            result.short = sorted({*result.short, *rows.user[held_out][~enough].tolist()})
            if enough.all():
                lists["candidates"] = _lists(
                    free.sample_distinct(user, plan.n_candidates, random), plan.n_candidates
                )
        tables[name] = _pairs(rows, held_out, **lists)
        tables[f"{name}_low"] = _pairs(rows, ~rows.positive & (part == code))
        tables[f"{name}_cold"] = _pairs(rows, divided.cold & (part == code))
    return tables


def _parts(rows: Rows, plan: Plan) -> IntArray:
    """The part of each row, (n,) int8."""
    if plan.split == "leave_one_out":
        return leave_one_out(rows.user, rows.positive, rows.time, rows.order)
    if plan.split == "random":
        return random_split(
            rows.user, rows.item, plan.seed, plan.test_fraction, plan.validation_fraction
        )
    if plan.split == "temporal":
        return temporal_split(rows.time, plan.validation_start, plan.test_start)
    part = rows.part.copy()
    if plan.split == "given_without_validation":
        train = rows.positive & (part == TRAIN)
        time = rows.time if plan.has_times else None
        last = cut_validation(
            rows.user, rows.item, train=train, time=time, order=rows.order, seed=plan.seed
        )
        part[last] = VALIDATION
    return part


def _given_candidates(bucket: Bucket, held_out: Mask, plan: Plan) -> tuple[IntArray, Mask]:
    """The data's own candidates of each held-out row (h, c), -1 where one is left out, and which rows (h,) have none."""
    assert plan.n_candidates_given is not None
    given = given_candidates(bucket.candidates, plan.n_items, plan.n_candidates_given)
    key = bucket.rows.user[held_out] * np.int64(plan.n_items) + bucket.rows.item[held_out]
    if len(given.key) == 0:
        return np.full((len(key), plan.n_candidates_given), -1, dtype=np.int32), np.ones(
            len(key), dtype=bool
        )
    place = np.minimum(np.searchsorted(given.key, key), len(given.key) - 1)
    return given.items[place], given.key[place] != key


def _pairs(rows: Rows, mask: Mask, **further: pa.Array) -> pa.Table:
    return pa.table(
        {"user": pa.array(rows.user[mask]), "item": pa.array(rows.item[mask]), **further}
    )


def _lists(items: IntArray, length: int) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(pa.array(items.astype(np.int32).ravel()), length)
