"""The sampler is exact: it draws each unseen item with its probability, and no seen item."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare  # type: ignore[import-untyped]

from recsys.data.negatives import NegativeSampler, index_pairs, popularity_weights
from tests.negative_cases import HISTORIES, N_ITEMS, SEEN, WEIGHTS, index_of, line_of


def test_index_merges_duplicates() -> None:
    index = index_pairs(np.array([2, 0, 2, 2]), np.array([1, 4, 0, 1]), 4, 5)
    assert index.offsets.tolist() == [0, 1, 1, 3, 3]
    assert index.items.tolist() == [4, 0, 1]
    assert index.users().tolist() == [0, 2, 2]


def test_index_of_nothing() -> None:
    none = np.empty(0, dtype=np.int32)
    index = index_pairs(none, none, 3, 5)
    assert (index.offsets.tolist(), index.items.tolist()) == ([0, 0, 0, 0], [])


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["uniform", "weighted"])
def test_every_point_has_its_item(weights: np.ndarray | None) -> None:
    sampler = NegativeSampler(index_of(SEEN, N_ITEMS), weights)
    for user, seen in enumerate(SEEN):
        expected = line_of(seen, N_ITEMS, weights)
        mass = int(sampler.lines.mass[user])
        assert mass == len(expected)
        users, points = np.full(mass, user), np.arange(mass)[:, None]
        assert sampler.item_at(users, points).ravel().tolist() == expected


@given(case=HISTORIES, data=st.data())
@pytest.mark.parametrize("weighted", [False, True])
def test_each_point_of_a_line_is_an_unseen_item(
    weighted: bool, case: tuple[int, list[set[int]]], data: st.DataObject
) -> None:
    n_items, histories = case
    lengths = st.lists(st.integers(1, 5), min_size=n_items, max_size=n_items)
    weights = np.array(data.draw(lengths)) if weighted else None
    sampler = NegativeSampler(index_of(histories, n_items), weights)
    for user, seen in enumerate(histories):
        expected = line_of(seen, n_items, weights)
        assert sampler.lines.mass[user] == len(expected)
        users, points = np.full(1, user), np.arange(len(expected))[None, :]
        assert sampler.item_at(users, points)[0].tolist() == expected


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["uniform", "weighted"])
def test_unseen_items_are_drawn_by_weight(weights: np.ndarray | None) -> None:
    n = 20_000
    users = np.repeat(np.arange(len(SEEN), dtype=np.int64), 10)
    sampler = NegativeSampler(index_of(SEEN, N_ITEMS), weights)
    draws = sampler.sample(users, n // 10, np.random.default_rng(1))
    for user, seen in enumerate(SEEN):
        counts = np.bincount(draws[users == user].ravel(), minlength=N_ITEMS)
        unseen = line_of(seen, N_ITEMS, None)
        assert counts[seen].sum() == 0
        share = np.ones(len(unseen)) if weights is None else weights[unseen]
        assert len(unseen) == 1 or chisquare(counts[unseen], share / share.sum() * n).pvalue > 1e-4


@given(seen=st.sets(st.integers(0, 7), max_size=6), seed=st.integers(0, 2**16))
def test_unseen_items_are_drawn_alike(seen: set[int], seed: int) -> None:
    sampler, unseen, n = NegativeSampler(index_of([seen], 8)), line_of(seen, 8, None), 4000
    drawn = sampler.sample(np.zeros(1, dtype=np.int64), n, np.random.default_rng(seed))
    counts = np.bincount(drawn[0], minlength=8)
    assert counts.sum() == counts[unseen].sum()
    # Six standard deviations of a binomial count: once in 10^9, and far less than a neighbour's
    # double share.
    share = 1 / len(unseen)
    assert np.abs(counts[unseen] - n * share).max() <= 6 * (n * share * (1 - share)) ** 0.5


def test_distinct_items_are_a_uniform_set() -> None:
    users = np.full(20_000, 5, dtype=np.int64)
    sampler = NegativeSampler(index_of(SEEN, N_ITEMS))
    draws = sampler.sample_distinct(users, 2, np.random.default_rng(2))
    # Six unseen items: fifteen sets of two, each as likely.
    low, high = draws.min(axis=1), draws.max(axis=1)
    assert (low < high).all()
    _, counts = np.unique(low * N_ITEMS + high, return_counts=True)
    assert len(counts) == 15
    assert chisquare(counts).pvalue > 1e-4
    assert not np.isin(draws, SEEN[5]).any()


@given(case=HISTORIES, seed=st.integers(0, 2**32))
def test_all_unseen_items_can_be_drawn_at_once(case: tuple[int, list[set[int]]], seed: int) -> None:
    n_items, histories = case
    sampler = NegativeSampler(index_of(histories, n_items))
    for user, seen in enumerate(histories):
        unseen = line_of(seen, n_items, None)
        random = np.random.default_rng(seed)
        drawn = sampler.sample_distinct(np.array([user]), len(unseen), random)
        assert sorted(drawn[0].tolist()) == unseen


def test_popularity_weights_follow_the_counts() -> None:
    item = np.repeat([0, 1, 2], [16, 1, 81])
    weights = popularity_weights(item, n_items=4, alpha=0.75)
    # 16^0.75 = 8, 81^0.75 = 27, an item without interactions counts as one.
    assert weights / weights[1] == pytest.approx([8, 1, 27, 1], rel=1e-6)
    assert len(set(popularity_weights(item, 4, alpha=0).tolist())) == 1
