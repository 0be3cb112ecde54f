"""The split of every row of a bucket, by the strategy that the config or the source asks for."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from recsys.config.schema import Config
from recsys.data.preprocessing.buckets import Rows
from recsys.data.preprocessing.first_pass import Summary, has_times
from recsys.data.preprocessing.split_strategies import (
    Mask,
    cut_validation,
    given_positives,
    leave_one_out,
    random_split,
    temporal_split,
    users_split,
)
from recsys.data.resolve import uses_candidates
from recsys.data.sources.layouts import Source
from recsys.data.splits import SPLITS, TEST, TRAIN, VALIDATION
from recsys.kernels.arrays import IntArray


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
        has_times: whether times order the rows of train and of validation.
        test_fraction: share of test in a random split or a split of users.
        validation_fraction: share of validation in the rest of it.
        n_candidates: candidates to draw for each held-out item, None for none.
        n_candidates_given: largest number of candidates that the data give for a test item, None
            without them.
        validation_start: time at which validation begins in a temporal split.
        test_start: time at which test begins in a temporal split.
    """

    n_users: int
    n_items: int
    strategy: Literal[
        "leave_one_out", "random", "temporal", "users", "given", "given_without_validation"
    ]
    seed: int
    n_negatives: int
    has_times: bool
    test_fraction: float
    validation_fraction: float
    n_candidates: int | None
    n_candidates_given: int | None
    validation_start: int = 0
    test_start: int = 0


def make_plan(config: Config, source: Source, summary: Summary) -> Plan:
    """Return the plan of a source, before a k-core and without the cuts of a temporal split."""
    data = config.data
    has_validation = SPLITS[VALIDATION] in source.splits
    given = "given" if has_validation else "given_without_validation"
    with_candidates = uses_candidates(config, source.candidates is not None)
    return Plan(
        n_users=len(summary.users[0]),
        n_items=len(summary.items[0]),
        strategy=given if source.split_given else data.split,  # type: ignore[arg-type]
        seed=data.split_seed,
        n_negatives=data.n_negatives,
        has_times=has_times(summary, TRAIN) and VALIDATION not in summary.timeless,
        test_fraction=data.test_fraction,
        validation_fraction=data.validation_fraction,
        n_candidates=config.evaluation.n_candidates if with_candidates else None,
        n_candidates_given=None if source.candidates is None else max(1, summary.n_candidates),
    )


@dataclass(frozen=True)
class SplitRows:
    """Rows of a bucket, (n,), and their splits.

    Attributes:
        split: code of each row's split, (n,) int8.
        train: mask of the training positives, (n,).
        given: mask of the positives that are given of users who are held out whole, (n,).
        cold: mask of the held-out positives of users without a positive in an earlier split or a
            given one, (n,). For such users of validation, the search has no training data; for
            those of test, final training has none.
        local: each row's user, counted from the bucket's first, (n,) int64. It keeps the arrays of
            the samplers as short as the bucket.
        first_user: the bucket's first user.
        n_local: users of the bucket, in the range from the first to the last.
    """

    split: IntArray
    train: Mask
    given: Mask
    cold: Mask
    local: IntArray
    first_user: int
    n_local: int


def split_rows(rows: Rows, plan: Plan) -> SplitRows:
    """Return the splits of a bucket's rows."""
    split = _apply_strategy(rows, plan)
    first = int(rows.user[0]) if len(rows) else 0
    local = rows.user.astype(np.int64) - first
    n_local = int(local[-1]) + 1 if len(rows) else 0
    given, cold = np.zeros(len(rows), dtype=bool), np.zeros(len(rows), dtype=bool)
    if plan.strategy == "users":
        given = given_positives(rows.user, rows.item, rows.positive, plan.seed) & (split != TRAIN)
    for code in (VALIDATION, TEST):
        is_earlier = rows.positive & (split < code) | given
        has_earlier = np.bincount(local[is_earlier], minlength=n_local) > 0
        cold |= rows.positive & (split == code) & ~has_earlier[local]
    train = rows.positive & (split == TRAIN)
    return SplitRows(split, train, given, cold, local, first, n_local)


def _apply_strategy(rows: Rows, plan: Plan) -> IntArray:
    """Return the code of each row's split, (n,) int8."""
    if plan.strategy == "leave_one_out":
        return leave_one_out(rows.user, rows.positive, rows.time, rows.order)
    if plan.strategy == "random":
        return random_split(
            rows.user, rows.item, plan.seed, plan.test_fraction, plan.validation_fraction
        )
    if plan.strategy == "users":
        return users_split(
            rows.user, rows.positive, plan.seed, plan.test_fraction, plan.validation_fraction
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
