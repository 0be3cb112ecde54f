"""Output of the pipeline: each bucket is split, gets its negatives and candidates, and is written.

`data.processed` reads the files.
"""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recsys.cluster.shared_paths import require_on_this_node
from recsys.data.negatives import NegativeSampler, index_pairs
from recsys.data.preprocessing.bucket_splits import Plan, SplitRows, split_rows
from recsys.data.preprocessing.buckets import Bucket, Rows, bucket_name
from recsys.data.preprocessing.given_candidates import collect_candidates
from recsys.data.preprocessing.split_strategies import Mask
from recsys.data.splits import SPLITS, TEST, TRAIN, VALIDATION
from recsys.kernels.arrays import IntArray
from recsys.storage.files import write_atomically
from recsys.storage.s3 import delete_local_copy


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
    splits = split_rows(bucket.rows, plan)
    result = BucketResult(_count(bucket, splits))
    n_seen = np.bincount(splits.local, minlength=splits.n_local)
    result.saturated = (splits.first_user + np.flatnonzero(n_seen == plan.n_items)).tolist()
    if result.saturated:
        return result
    tables = _make_tables(bucket, splits, plan, np.random.default_rng([plan.seed, number]), result)
    if result.short or result.unmatched:
        return result
    require_on_this_node(folder)
    for kind, table in tables.items():
        result.counts[f"n_{kind}"] = table.num_rows
        if table.num_rows:
            _write_table(table, folder / f"{kind}-{bucket_name(number)}.parquet")
    return result


def _count(bucket: Bucket, splits: SplitRows) -> Counter[str]:
    rows, n_positives = bucket.rows, int(bucket.rows.positive.sum())
    counts = Counter(
        n_duplicates=bucket.n_duplicates,
        n_overlaps=bucket.n_overlaps,
        n_interactions=len(rows),
        n_positives=n_positives,
        n_low=len(rows) - n_positives,
    )
    for name, code in (("n_cold_validation_users", VALIDATION), ("n_cold_users", TEST)):
        is_cold = splits.cold & (splits.split == code)
        counts[name] = len(np.unique(rows.user[is_cold]))
    of_validation = splits.given & (splits.split == VALIDATION)
    counts["n_validation_users"] = len(np.unique(rows.user[of_validation]))
    return counts


def _make_tables(
    bucket: Bucket,
    splits: SplitRows,
    plan: Plan,
    random: np.random.Generator,
    result: BucketResult,
) -> dict[str, pa.Table]:
    """Return the bucket's tables by kind of file.

    Users for whom something cannot be drawn are added to `result`.
    """
    rows, split, train = bucket.rows, splits.split, splits.train
    sampler = _sampler(rows, splits, TRAIN, plan)
    negatives = sampler.sample(splits.local[train], plan.n_negatives, random)
    tables = {
        SPLITS[TRAIN]: _pairs(
            rows, train, plan.has_times, negatives=_lists(negatives, plan.n_negatives)
        ),
        f"{SPLITS[TRAIN]}_low": _pairs(rows, ~rows.positive & (split == TRAIN)),
    }
    for code in (VALIDATION, TEST):
        name, is_given = SPLITS[code], splits.given & (split == code)
        held_out = rows.positive & (split == code) & ~splits.cold & ~is_given
        with_time = plan.has_times and code == VALIDATION  # final training trains on validation
        lists = _draw_lists(
            bucket, splits, plan, held_out=held_out, code=code, random=random, result=result
        )
        tables[name] = _pairs(rows, held_out, with_time, **lists)
        tables[f"{name}_given"] = _pairs(rows, is_given, plan.has_times)
        tables[f"{name}_low"] = _pairs(rows, ~rows.positive & (split == code))
        tables[f"{name}_cold"] = _pairs(rows, splits.cold & (split == code), with_time)
    return tables


def _draw_lists(
    bucket: Bucket,
    splits: SplitRows,
    plan: Plan,
    *,
    held_out: Mask,
    code: int,
    random: np.random.Generator,
    result: BucketResult,
) -> dict[str, pa.Array]:
    """Return the negatives and the candidates of the held-out positives of a split, by column."""
    sampler = _sampler(bucket.rows, splits, code, plan)
    user, local, lists = bucket.rows.user[held_out], splits.local[held_out], {}
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


def _sampler(rows: Rows, splits: SplitRows, code: int, plan: Plan) -> NegativeSampler:
    """Return the sampler of items that a user has not seen in a split or an earlier one.

    Later splits have no influence, so that no row of test changes the search
    (docs/decisions/0002).
    """
    seen = splits.split <= code
    user, item = splits.local[seen], rows.item[seen]
    return NegativeSampler(index_pairs(user, item, splits.n_local, plan.n_items))


def _pairs(rows: Rows, mask: Mask, with_time: bool = False, **lists: pa.Array) -> pa.Table:
    names = ["user", "item", *(["time"] if with_time else [])]
    return pa.table({name: pa.array(getattr(rows, name)[mask]) for name in names} | lists)


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
