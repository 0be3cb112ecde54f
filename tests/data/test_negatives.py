"""The sampler is exact: what it may draw, how often, and what it never draws."""

import numpy as np
import pytest
import torch
from scipy.stats import chisquare  # type: ignore[import-untyped]

from recsys.data.negatives import NegativeSampler, UserItemIndex, index_pairs, popularity_weights

N_ITEMS = 12
KNOWN = {0: [0, 1, 2], 1: [11], 2: [], 3: [0, 5, 6, 11], 4: list(range(11)), 5: [3, 4, 5, 6, 7, 8]}
WEIGHTS = np.array([5, 1, 3, 2, 8, 1, 1, 4, 2, 9, 3, 6], dtype=np.int64)


@pytest.fixture
def known() -> UserItemIndex:
    pairs = [(user, item) for user, items in KNOWN.items() for item in items]
    user, item = np.array(pairs, dtype=np.int32).T
    return index_pairs(user, item, len(KNOWN), N_ITEMS)


def free_items(user: int) -> list[int]:
    return [item for item in range(N_ITEMS) if item not in KNOWN[user]]


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
def test_every_point_has_its_item(known: UserItemIndex, weights: np.ndarray | None) -> None:
    sampler = NegativeSampler(known, weights)
    on_torch = sampler.to("cpu")
    for user in KNOWN:
        expected = [
            item
            for item in free_items(user)
            for _ in range(1 if weights is None else weights[item])
        ]
        mass = int(sampler.free_mass[user])
        assert mass == len(expected)
        users, points = np.full(mass, user), np.arange(mass)[:, None]
        assert sampler.item_at(users, points).ravel().tolist() == expected
        assert (
            on_torch.item_at(torch.from_numpy(users), torch.from_numpy(points)).ravel().tolist()
            == expected
        )


@pytest.mark.parametrize("weighted", [False, True])
def test_known_items_in_clumps_are_stepped_over(weighted: bool) -> None:
    # Sixty known items side by side share a cell of the line, which is cut for known items that lie apart.
    n_items = 5000
    clump = np.r_[100:160, 3000, 4999]
    known = index_pairs(np.full(len(clump), 1), clump, 3, n_items)
    weights = np.where(np.arange(n_items) % 7 == 0, 3, 1) if weighted else None
    sampler = NegativeSampler(known, weights)
    free = np.setdiff1d(np.arange(n_items), clump)
    expected = free if weights is None else np.repeat(free, weights[free])
    points = torch.arange(len(expected))[None, :]
    assert np.array_equal(sampler.to("cpu").item_at(torch.tensor([1]), points)[0].numpy(), expected)


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["uniform", "weighted"])
@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_free_items_are_drawn_by_weight(
    known: UserItemIndex, weights: np.ndarray | None, backend: str
) -> None:
    n = 20_000
    users = np.repeat(np.arange(len(KNOWN), dtype=np.int64), 10)
    sampler = NegativeSampler(known, weights)
    if backend == "numpy":
        draws = sampler.sample_numpy(users, n // 10, np.random.default_rng(1))
    else:
        draws = (
            sampler.to("cpu")
            .sample(torch.from_numpy(users), n // 10, torch.Generator().manual_seed(1))
            .numpy()
        )
    for user in KNOWN:
        counts = np.bincount(draws[users == user].ravel(), minlength=N_ITEMS)
        free = free_items(user)
        assert counts[KNOWN[user]].sum() == 0
        share = np.ones(len(free)) if weights is None else weights[free]
        assert len(free) == 1 or chisquare(counts[free], share / share.sum() * n).pvalue > 1e-4


def test_distinct_items_are_a_uniform_set(known: UserItemIndex) -> None:
    users = np.full(20_000, 5, dtype=np.int64)
    draws = NegativeSampler(known).sample_distinct(users, 2, np.random.default_rng(2))
    # Six free items: fifteen sets of two, each as likely.
    low, high = draws.min(axis=1), draws.max(axis=1)
    assert (low < high).all()
    _, counts = np.unique(low * N_ITEMS + high, return_counts=True)
    assert len(counts) == 15
    assert chisquare(counts).pvalue > 1e-4
    assert not np.isin(draws, KNOWN[5]).any()


def test_all_free_items_can_be_drawn_at_once(known: UserItemIndex) -> None:
    draws = NegativeSampler(known).sample_distinct(np.array([3, 4]), 1, np.random.default_rng(0))
    assert draws[1].tolist() == [11]
    draws = NegativeSampler(known).sample_distinct(np.array([3]), 8, np.random.default_rng(0))
    assert sorted(draws[0].tolist()) == free_items(3)


def test_popularity_weights_follow_the_counts() -> None:
    item = np.repeat([0, 1, 2], [16, 1, 81])
    weights = popularity_weights(item, n_items=4, alpha=0.75)
    # 16^0.75 = 8, 81^0.75 = 27, an item without interactions counts as one.
    assert weights / weights[1] == pytest.approx([8, 1, 27, 1], rel=1e-6)
    assert len(set(popularity_weights(item, 4, alpha=0).tolist())) == 1
