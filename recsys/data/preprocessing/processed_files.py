"""Output of the pipeline: each bucket is split, gets its negatives and candidates, and is written.

`data.processed` reads the files.
"""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recsys.cluster.shared_paths import require_on_this_node
from recsys.data.negatives import IntArray, NegativeSampler, index_pairs
from recsys.data.preprocessing.buckets import Bucket, Rows, bucket_name
from recsys.data.preprocessing.given_candidates import collect_candidates
from recsys.data.preprocessing.split_strategies import (
    Mask,
    cut_validation,
    leave_one_out,
    random_split,
    temporal_split,
)
from recsys.data.splits import SPLITS, TEST, TRAIN, VALIDATION
from recsys.storage.files import write_atomically
from recsys.storage.s3 import delete_local_copy


@dataclass(frozen=True)
class Plan:
    """Settings and facts of the whole source that the task of each bucket needs.

    Attributes:
        n_users: users of the data.
        n_items: items of the data.
        strategy: the split strategy; "given_without_validation" cuts validation from the given
            train split.
        seed: seed of the split, the negatives and the candidates.
        n_negatives: fixed negatives of each positive.
        has_times: whether the times of the training rows differ.
        test_fraction: share of test in a random split.
        validation_fraction: share of validation in the rest of it.
        n_candidates: candidates to draw for each held-out item, None for none.
        n_candidates_given: largest number of candidates that the data give for a test item, None
            without them.
        validation_start: time at which validation begins in a temporal split.
        test_start: time at which test begins in a temporal split.
    """

    n_users: int
    n_items: int
    strategy: Literal["leave_one_out", "random", "temporal", "given", "given_without_validation"]
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
    """Counts of a bucket, and the users (contiguous ids) who make the data unusable.

    If there are such users, nothing is written.

    Attributes:
        counts: the manifest's counts by name, and `n_<file kind>` for each kind of file.
        saturated: users who interacted with every item.
        short: held-out users with fewer unseen items than candidates to draw.
        unmatched: test users without a line in the data's candidate file.
    """

    counts: Counter[str] = field(default_factory=Counter)
    saturated: list[int] = field(default_factory=list)
    short: list[int] = field(default_factory=list)
    unmatched: list[int] = field(default_factory=list)


def total_result(results: list[BucketResult]) -> BucketResult:
    """Return the sum of the results."""
    total = BucketResult()
    for result in results:
        total.counts += result.counts
        total.saturated += result.saturated
        total.short += result.short
        total.unmatched += result.unmatched
    return total


def write_bucket(bucket: Bucket, plan: Plan, folder: Path, number: int) -> BucketResult:
    """Split a bucket, draw its negatives and candidates, and write its files into `folder`."""
    rows = _split_rows(bucket.rows, plan)
    result = BucketResult(_count(bucket, rows))
    n_seen = np.bincount(rows.local, minlength=rows.n_local)
    result.saturated = (rows.first_user + np.flatnonzero(n_seen == plan.n_items)).tolist()
    if result.saturated:
        return result
    tables = _make_tables(bucket, rows, plan, np.random.default_rng([plan.seed, number]), result)
    if result.short or result.unmatched:
        return result
    require_on_this_node(folder)
    for kind, table in tables.items():
        result.counts[f"n_{kind}"] = table.num_rows
        if table.num_rows:
            _write_table(table, folder / f"{kind}-{bucket_name(number)}.parquet")
    return result


@dataclass(frozen=True)
class _SplitRows:
    """Rows of a bucket, (n,), and their splits.

    Attributes:
        split: code of each row's split, (n,) int8.
        train: mask of the training positives, (n,).
        cold: mask of the held-out positives of users without a positive in an earlier split, (n,).
            For such users of validation, the search has no training data; for those of test, final
            training has none.
        local: each row's user, counted from the bucket's first, (n,) int64. It keeps the arrays of
            the samplers as short as the bucket.
        first_user: the bucket's first user.
        n_local: users of the bucket, in the range from the first to the last.
    """

    split: IntArray
    train: Mask
    cold: Mask
    local: IntArray
    first_user: int
    n_local: int


def _split_rows(rows: Rows, plan: Plan) -> _SplitRows:
    split = _apply_strategy(rows, plan)
    first = int(rows.user[0]) if len(rows) else 0
    local = rows.user.astype(np.int64) - first
    n_local = int(local[-1]) + 1 if len(rows) else 0
    cold = np.zeros(len(rows), dtype=bool)
    for code in (VALIDATION, TEST):
        has_earlier = np.bincount(local[rows.positive & (split < code)], minlength=n_local) > 0
        cold |= rows.positive & (split == code) & ~has_earlier[local]
    return _SplitRows(split, rows.positive & (split == TRAIN), cold, local, first, n_local)


def _apply_strategy(rows: Rows, plan: Plan) -> IntArray:
    """Return the code of each row's split, (n,) int8."""
    if plan.strategy == "leave_one_out":
        return leave_one_out(rows.user, rows.positive, rows.time, rows.order)
    if plan.strategy == "random":
        return random_split(
            rows.user, rows.item, plan.seed, plan.test_fraction, plan.validation_fraction
        )
    if plan.strategy == "temporal":
        return temporal_split(rows.time, plan.validation_start, plan.test_start)
    split = rows.split.copy()
    if plan.strategy == "given_without_validation":
        train = rows.positive & (split == TRAIN)
        time = rows.time if plan.has_times else None
        last = cut_validation(
            rows.user, rows.item, train=train, time=time, order=rows.order, seed=plan.seed
        )
        split[last] = VALIDATION
    return split


def _count(bucket: Bucket, split_rows: _SplitRows) -> Counter[str]:
    rows, n_positives = bucket.rows, int(bucket.rows.positive.sum())
    counts = Counter(
        n_duplicates=bucket.n_duplicates,
        n_overlaps=bucket.n_overlaps,
        n_interactions=len(rows),
        n_positives=n_positives,
        n_low=len(rows) - n_positives,
    )
    for name, code in (("n_cold_validation_users", VALIDATION), ("n_cold_users", TEST)):
        is_cold = split_rows.cold & (split_rows.split == code)
        counts[name] = len(np.unique(rows.user[is_cold]))
    return counts


def _make_tables(
    bucket: Bucket,
    split_rows: _SplitRows,
    plan: Plan,
    random: np.random.Generator,
    result: BucketResult,
) -> dict[str, pa.Table]:
    """Return the bucket's tables by kind of file.

    Users for whom something cannot be drawn are added to `result`.
    """
    rows, split, train = bucket.rows, split_rows.split, split_rows.train
    sampler = _sampler(rows, split_rows, TRAIN, plan)
    negatives = sampler.sample(split_rows.local[train], plan.n_negatives, random)
    tables = {
        SPLITS[TRAIN]: _pairs(rows, train, negatives=_lists(negatives, plan.n_negatives)),
        f"{SPLITS[TRAIN]}_low": _pairs(rows, ~rows.positive & (split == TRAIN)),
    }
    for code in (VALIDATION, TEST):
        name, held_out = SPLITS[code], rows.positive & (split == code) & ~split_rows.cold
        lists = _draw_lists(
            bucket, split_rows, plan, held_out=held_out, code=code, random=random, result=result
        )
        tables[name] = _pairs(rows, held_out, **lists)
        tables[f"{name}_low"] = _pairs(rows, ~rows.positive & (split == code))
        tables[f"{name}_cold"] = _pairs(rows, split_rows.cold & (split == code))
    return tables


def _draw_lists(
    bucket: Bucket,
    split_rows: _SplitRows,
    plan: Plan,
    *,
    held_out: Mask,
    code: int,
    random: np.random.Generator,
    result: BucketResult,
) -> dict[str, pa.Array]:
    """Return the negatives and the candidates of the held-out positives of a split, by column."""
    sampler = _sampler(bucket.rows, split_rows, code, plan)
    user, local, lists = bucket.rows.user[held_out], split_rows.local[held_out], {}
    if plan.strategy == "random":
        negatives = sampler.sample(local, plan.n_negatives, random)
        lists["negatives"] = _lists(negatives, plan.n_negatives)
    if code == TEST and plan.n_candidates_given is not None:
        given = collect_candidates(bucket.candidates, plan.n_items, plan.n_candidates_given)
        candidates, missing = given.find(user * np.int64(plan.n_items) + bucket.rows.item[held_out])
        result.unmatched += np.unique(user[missing]).tolist()
        lists["candidates"] = _lists(candidates, plan.n_candidates_given)
    elif plan.n_candidates is not None:
        is_short = sampler.lines.mass[local] < plan.n_candidates
        result.short = sorted({*result.short, *user[is_short].tolist()})
        if not is_short.any():
            candidates = sampler.sample_distinct(local, plan.n_candidates, random)
            lists["candidates"] = _lists(candidates, plan.n_candidates)
    return lists


def _sampler(rows: Rows, split_rows: _SplitRows, code: int, plan: Plan) -> NegativeSampler:
    """Return the sampler of items that a user has not seen in a split or an earlier one.

    Later splits have no influence, so that no row of test changes the search
    (docs/decisions/0002).
    """
    seen = split_rows.split <= code
    user, item = split_rows.local[seen], rows.item[seen]
    return NegativeSampler(index_pairs(user, item, split_rows.n_local, plan.n_items))


def _pairs(rows: Rows, mask: Mask, **lists: pa.Array) -> pa.Table:
    return pa.table({"user": pa.array(rows.user[mask]), "item": pa.array(rows.item[mask]), **lists})


def _lists(items: IntArray, length: int) -> pa.FixedSizeListArray:
    """Return items (n, length) as an array of n lists of int32."""
    return pa.FixedSizeListArray.from_arrays(pa.array(items.astype(np.int32).ravel()), length)


def _write_table(table: pa.Table, path: Path) -> None:
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
