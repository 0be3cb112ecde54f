"""Strategies that split interactions into train, validation and test.

They are pure functions of the arrays of one bucket, which holds all rows of its users, sorted by
user and item. Results are codes of `data.splits` or masks. None depends on which users share a
bucket.
"""

import numpy as np
import numpy.typing as npt

from recsys.data.splits import TEST, TRAIN, VALIDATION
from recsys.errors import InputError
from recsys.kernels.arrays import IntArray
from recsys.kernels.hashing import pack_pairs, splitmix64

Mask = npt.NDArray[np.bool_]


def leave_one_out(user: IntArray, positive: Mask, time: IntArray, order: IntArray) -> IntArray:
    """Return the split of each row: a user's last positive is test, the one before validation.

    Of positives at the same time, the later one in the source comes last. Users with fewer than 3
    positives only train, and so do low ratings.

    All arguments are (n,), and so is the result, int8.
    """
    split = np.full(len(user), TRAIN, dtype=np.int8)
    if len(user) == 0:
        return split
    count = np.bincount(user - user[0], weights=positive)[user - user[0]]
    eligible = positive & (count >= 3)
    for code in (TEST, VALIDATION):
        last = last_of_each(user, eligible, time, order)
        split[last] = code
        eligible = eligible & ~last
    return split


def last_of_each(user: IntArray, eligible: Mask, time: IntArray, order: IntArray) -> Mask:
    """Return a mask of each user's latest eligible row; at equal times, the last in the source.

    Users without an eligible row have none. All arguments are (n,), n > 0, and so is the result.
    """
    starts = np.flatnonzero(np.r_[True, user[1:] != user[:-1]])  # (n_users,)
    group = np.repeat(np.arange(len(starts)), np.diff(np.r_[starts, len(user)]))  # (n,)
    latest = np.maximum.reduceat(np.where(eligible, time, np.iinfo(np.int64).min), starts)
    eligible = eligible & (time == latest[group])
    highest = np.maximum.reduceat(np.where(eligible, order, -1), starts)
    last: Mask = eligible & (order == highest[group])
    return last


def random_split(
    user: IntArray, item: IntArray, seed: int, test_fraction: float, validation_fraction: float
) -> IntArray:
    """Return the split of each pair, (n,) int8, which depends on the pair and the seed alone.

    A pair is in test with probability `test_fraction`, and otherwise in validation with
    probability `validation_fraction`.
    """
    test = pair_hash(user, item, seed, stream=0) < test_fraction
    validation = pair_hash(user, item, seed, stream=1) < validation_fraction
    return np.where(test, TEST, np.where(validation, VALIDATION, TRAIN)).astype(np.int8)


def users_split(
    user: IntArray, positive: Mask, seed: int, test_fraction: float, validation_fraction: float
) -> IntArray:
    """Return the split of each row, (n,) int8, the same for all rows of a user.

    A user is in test with probability `test_fraction`, and otherwise in validation with
    probability `validation_fraction`; it depends on the user and the seed alone. Users with fewer
    than 2 positives only train. `user` and `positive` are (n,).

    Source: Liang et al. 2018, arXiv:1802.05814, sec. 4.1 (strong generalisation).
    """
    split = random_split(user, np.zeros_like(user), seed, test_fraction, validation_fraction)
    split[_count_positives(user, positive) < 2] = TRAIN
    return split


def given_positives(user: IntArray, item: IntArray, positive: Mask, seed: int) -> Mask:
    """Return a mask of four fifths of each user's positives, those with the least hashes.

    Of n > 0 positives it has floor(4 n / 5), and at least one. All arrays are (n,), and so is the
    result.
    """
    key = _pair_bits(user, item, seed, stream=2)
    order = np.lexsort((key, ~positive, user))  # a user's positives first
    rank = np.arange(len(user)) - np.searchsorted(user, user)
    n_given = np.maximum(1, 4 * _count_positives(user, positive) // 5)
    given = np.empty(len(user), dtype=bool)
    given[order] = rank < n_given
    return given & positive


def _count_positives(user: IntArray, positive: Mask) -> IntArray:
    """Return the number of positives of each row's user, (n,) int64."""
    before = np.concatenate([[0], np.cumsum(positive)])
    first, end = (np.searchsorted(user, user, side=side) for side in ("left", "right"))
    count: IntArray = before[end] - before[first]
    return count


def temporal_split(time: IntArray, validation_start: int, test_start: int) -> IntArray:
    """Return the split of each time, (n,) int8: validation and test begin at the given times."""
    # The codes follow the order of the splits in time.
    return ((time >= validation_start).astype(np.int8) + (time >= test_start)).astype(np.int8)


def temporal_cuts(
    times: IntArray, counts: IntArray, test_fraction: float, validation_fraction: float
) -> tuple[int, int]:
    """Return the times at which validation and test begin.

    `times` (t,): distinct times in order. `counts` (t,): interactions at each.

    Raises:
        InputError: if there are fewer than 3 distinct times.
    """
    test = temporal_cut(times, counts, test_fraction)
    rest = np.zeros(len(times), dtype=bool) if test is None else times < test
    validation = temporal_cut(times[rest], counts[rest], validation_fraction)
    if test is None or validation is None:
        raise InputError(
            "data.split",
            "temporal needs at least 3 different times",
            f"{len(times)}",
            "Set data.split to random.",
        )
    return validation, test


def temporal_cut(times: IntArray, counts: IntArray, fraction: float) -> int | None:
    """Return the time from which on about `fraction` of the interactions happened.

    Interactions at the same time are never separated, so the possible cut nearest to `fraction` is
    returned: of two equally near ones the later one, and None if there is only one time.

    `times` (t,): distinct times in order. `counts` (t,): interactions at each.
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
    """Return a mask with one training positive of each user who has at least two.

    It is the last by time, or a pseudo-random one if `time` is None. All arrays are (n,), and so is
    the result. `train`: training positives.
    """
    if len(user) == 0:
        return train
    count = np.bincount(user - user[0], weights=train)[user - user[0]]
    key = _pair_bits(user, item, seed, stream=2) if time is None else time
    return last_of_each(user, train & (count >= 2), key, order)


def pair_hash(user: IntArray, item: IntArray, seed: int, stream: int) -> npt.NDArray[np.float64]:
    """Return a pseudo-random number in [0, 1) for each pair, (n,) float64.

    It depends on the pair, the seed and the stream alone.
    """
    return _pair_bits(user, item, seed, stream).astype(np.float64) * 2.0**-53


def _pair_bits(user: IntArray, item: IntArray, seed: int, stream: int) -> IntArray:
    """Return a pseudo-random integer in [0, 2^53) for each pair, (n,) int64."""
    word = np.array([(seed * 4 + stream) % (1 << 64)], dtype=np.uint64)
    return (splitmix64(pack_pairs(user, item) ^ splitmix64(word)) >> np.uint64(11)).astype(np.int64)
