import math

import numpy as np
import pytest

from recsys.data.preprocessing.split_strategies import (
    cut_validation,
    leave_one_out,
    pair_hash,
    random_split,
    temporal_cut,
    temporal_split,
)


def times(*values: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array(values, dtype=np.int64)


def test_leave_one_out_by_hand() -> None:
    user = np.array([0, 0, 0, 0, 1, 1, 2, 2, 2, 2])
    positive = np.array([1, 1, 1, 0, 1, 1, 1, 1, 1, 1], dtype=bool)
    # User 0: the low rating is the latest and trains. User 1 has two positives: both train.
    # User 2: of three equal times the later in the file (orders 9, 8) are held out.
    time = times(30, 10, 20, 99, 1, 2, 5, 5, 5, 4)
    order = np.array([0, 1, 2, 3, 4, 5, 8, 9, 6, 7])
    assert leave_one_out(user, positive, time, order).tolist() == [2, 0, 1, 0, 0, 0, 1, 2, 0, 0]


def test_leave_one_out_without_users() -> None:
    none = np.empty(0, dtype=np.int64)
    assert leave_one_out(none, none.astype(bool), none, none).tolist() == []


def test_leave_one_out_of_low_ratings_alone() -> None:
    user, order = np.array([7, 7, 7]), np.arange(3)
    assert leave_one_out(user, np.zeros(3, dtype=bool), times(1, 2, 3), order).tolist() == [0, 0, 0]


def test_negative_times() -> None:
    user, order = np.array([7, 7, 7]), np.arange(3)
    assert leave_one_out(user, np.ones(3, dtype=bool), times(-1, -3, -2), order).tolist() == [
        2,
        0,
        1,
    ]


@pytest.mark.parametrize(
    ("at", "counts", "fraction", "cut"),
    [
        ([1, 2, 3, 4, 5, 6, 7, 8, 9, 10], [1] * 10, 0.2, 9),
        ([1, 2, 3, 4], [1, 1, 1, 1], 0.5, 3),
        # 6 of 10 at time 2: a cut before it holds out 9, one behind it 3; 3 is nearer to 2.
        ([1, 2, 3], [1, 6, 3], 0.2, 3),
        # Nearer to 4 are the 5 from time 2 on.
        ([1, 2, 3], [5, 4, 1], 0.4, 2),
        # 2 or 4 are as near to 3: the later cut, so that less is held out.
        ([1, 2, 3], [6, 2, 2], 0.3, 3),
        # Never all, never none.
        ([1, 2], [1, 99], 0.01, 2),
        ([1, 2], [99, 1], 0.99, 2),
    ],
)
def test_temporal_cut(at: list[int], counts: list[int], fraction: float, cut: int) -> None:
    assert temporal_cut(times(*at), np.array(counts), fraction) == cut


def test_temporal_cut_needs_two_times() -> None:
    assert temporal_cut(times(1), np.array([9]), 0.5) is None


def test_temporal_split_never_looks_ahead() -> None:
    assert temporal_split(times(5, 1, 3, 4, 3, 2), 3, 5).tolist() == [2, 0, 1, 1, 1, 0]


def test_random_split_shares() -> None:
    user, item = (array.ravel() for array in np.meshgrid(np.arange(300), np.arange(300)))
    split = random_split(user, item, seed=3, test_fraction=0.2, validation_fraction=0.1)
    share = np.bincount(split) / len(split)
    # Six standard deviations of a binomial share.
    for found, expected in zip(share, (0.72, 0.08, 0.2), strict=True):
        assert abs(found - expected) < 6 * math.sqrt(expected * (1 - expected) / len(split))


def test_random_split_depends_on_pair_and_seed_alone() -> None:
    user, item = np.arange(1000) % 37, np.arange(1000)
    split = random_split(user, item, 3, 0.2, 0.1)
    shuffled = np.random.default_rng(0).permutation(1000)
    assert np.array_equal(
        random_split(user[shuffled], item[shuffled], 3, 0.2, 0.1), split[shuffled]
    )
    assert not np.array_equal(random_split(user, item, 4, 0.2, 0.1), split)


def test_pair_hash_is_splitmix() -> None:
    def mix(word: int) -> int:
        word = (word + 0x9E3779B97F4A7C15) % 2**64
        word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        word = (word ^ (word >> 27)) * 0x94D049BB133111EB % 2**64
        return word ^ (word >> 31)

    pairs = [(0, 0), (1, 2), (2**31 - 1, 2**31 - 1)]
    expected = [(mix((user << 32 | item) ^ mix(5 * 4 + 1)) >> 11) / 2**53 for user, item in pairs]
    user, item = np.array(pairs).T
    assert pair_hash(user, item, seed=5, stream=1).tolist() == expected


def test_cut_validation() -> None:
    user = np.array([0, 0, 0, 1, 2, 2])
    train = np.array([1, 1, 0, 1, 1, 1], dtype=bool)
    order = np.arange(6)
    last = cut_validation(
        user, np.arange(6), train=train, time=times(2, 1, 9, 1, 4, 4), order=order, seed=0
    )
    assert last.tolist() == [True, False, False, False, False, True]
    seeded = cut_validation(user, np.arange(6), train=train, time=None, order=order, seed=0)
    assert [seeded[:2].sum(), seeded[2:4].sum(), seeded[4:].sum()] == [1, 0, 1]
