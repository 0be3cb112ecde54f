"""How interactions are divided into train, validation and test.

Pure functions of one bucket's arrays, in which every user is whole and rows are sorted by user and item. A part is a code:
0 train, 1 validation, 2 test. Nothing here depends on how users fell into buckets.
"""

import numpy as np
import numpy.typing as npt

from recsys.data.negatives import IntArray
from recsys.data.splits import TEST, TRAIN, VALIDATION
from recsys.kernels.hashing import pack_pairs, splitmix64

Mask = npt.NDArray[np.bool_]


def leave_one_out(user: IntArray, positive: Mask, time: IntArray, order: IntArray) -> IntArray:
    """A user's last positive by time is test, the one before is validation; users with fewer than 3 positives only train.

    Of equal times the later in file order is the last. Low ratings train. All arguments (n,), result (n,) int8.
    """
    part = np.zeros(len(user), dtype=np.int8)
    if len(user) == 0:
        return part
    count = np.bincount(user - user[0], weights=positive)[user - user[0]]
    eligible = positive & (count >= 3)
    for code in (TEST, VALIDATION):
        last = last_of_each(user, eligible, time, order)
        part[last] = code
        eligible = eligible & ~last
    return part


def last_of_each(user: IntArray, eligible: Mask, time: IntArray, order: IntArray) -> Mask:
    """True at each user's eligible row of the latest time, of equal times the highest order; (n,) int64 or bool each, n > 0."""
    starts = np.flatnonzero(np.r_[True, user[1:] != user[:-1]])
    group = np.repeat(np.arange(len(starts)), np.diff(np.r_[starts, len(user)]))
    latest = np.maximum.reduceat(np.where(eligible, time, np.iinfo(np.int64).min), starts)
    eligible = eligible & (time == latest[group])
    highest = np.maximum.reduceat(np.where(eligible, order, -1), starts)
    last: Mask = eligible & (order == highest[group])
    return last


def random_split(
    user: IntArray, item: IntArray, seed: int, test_fraction: float, validation_fraction: float
) -> IntArray:
    """Each row falls into test with one probability, into validation with another of the rest, by a hash of the pair.

    The result (n,) int8 depends on the pair and the seed alone.
    """
    test = pair_hash(user, item, seed, stream=0) < test_fraction
    validation = pair_hash(user, item, seed, stream=1) < validation_fraction
    return np.where(test, TEST, np.where(validation, VALIDATION, TRAIN)).astype(np.int8)


def temporal_split(time: IntArray, validation_start: int, test_start: int) -> IntArray:
    """Train before `validation_start`, test from `test_start` on, (n,) int8."""
    return ((time >= validation_start).astype(np.int8) + (time >= test_start)).astype(np.int8)


def temporal_cut(times: IntArray, counts: IntArray, fraction: float) -> int | None:
    """The time from which on about `fraction` of the interactions lie, None where all times are equal.

    `times` (t,): distinct, ascending. `counts` (t,): interactions at each. Equal times stay on one side; of the possible cuts
    the one nearest to the fraction is taken, of two equally near the later.
    """
    if len(times) < 2:
        return None
    before = np.cumsum(counts)[:-1]  # interactions before times[1], times[2], ...
    distance = np.abs(before - (1 - fraction) * counts.sum())
    return int(times[len(times) - 1 - int(np.argmin(distance[::-1]))])


def cut_validation(
    user: IntArray,
    item: IntArray,
    *,
    train: Mask,
    time: IntArray | None,
    order: IntArray,
    seed: int,
) -> Mask:
    """True at one training positive of each user who has two at least: the last by time, or a seeded one without times.

    `train` (n,): the training positives.
    """
    if len(user) == 0:
        return train
    count = np.bincount(user - user[0], weights=train)[user - user[0]]
    key = _pair_bits(user, item, seed, stream=2) if time is None else time
    return last_of_each(user, train & (count >= 2), key, order)


def pair_hash(user: IntArray, item: IntArray, seed: int, stream: int) -> npt.NDArray[np.float64]:
    """A uniform number in [0, 1) for each pair, (n,), from the pair, the seed and the stream alone."""
    return _pair_bits(user, item, seed, stream).astype(np.float64) * 2.0**-53


def _pair_bits(user: IntArray, item: IntArray, seed: int, stream: int) -> IntArray:
    """A uniform integer in [0, 2^53) for each pair, (n,) int64."""
    word = np.array([(seed * 4 + stream) % (1 << 64)], dtype=np.uint64)
    return (splitmix64(pack_pairs(user, item) ^ splitmix64(word)) >> np.uint64(11)).astype(np.int64)
