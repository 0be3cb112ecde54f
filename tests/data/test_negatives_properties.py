"""The sampler against a set difference, for whatever catalogue and histories hypothesis thinks of."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recsys.data.negatives import NegativeSampler, index_pairs

# A catalogue of up to 40 items and what each of up to 4 users knows of it, all of it included.
HISTORIES = st.integers(1, 40).flatmap(
    lambda n_items: st.tuples(
        st.just(n_items), st.lists(st.sets(st.integers(0, n_items - 1)), min_size=1, max_size=4)
    )
)


def sampler_of(
    n_items: int, histories: list[set[int]], weights: np.ndarray | None = None
) -> NegativeSampler:
    pairs = [(user, item) for user, items in enumerate(histories) for item in items]
    user, item = np.array(pairs, dtype=np.int32).reshape(-1, 2).T
    return NegativeSampler(index_pairs(user, item, len(histories), n_items), weights)


@given(case=HISTORIES, data=st.data())
@pytest.mark.parametrize("weighted", [False, True])
def test_each_point_of_a_line_is_a_free_item(
    weighted: bool, case: tuple[int, list[set[int]]], data: st.DataObject
) -> None:
    n_items, histories = case
    lengths = st.lists(st.integers(1, 5), min_size=n_items, max_size=n_items)
    weights = np.array(data.draw(lengths)) if weighted else None
    sampler = sampler_of(n_items, histories, weights)
    on_torch = sampler.to("cpu")
    for user, known in enumerate(histories):
        # As many points as an item is long, in the order of the items.
        free = [
            item
            for item in range(n_items)
            if item not in known
            for _ in range(1 if weights is None else weights[item])
        ]
        assert sampler.free_mass[user] == len(free)
        users, points = np.full(1, user), np.arange(len(free))[None, :]
        assert sampler.item_at(users, points)[0].tolist() == free
        assert (
            on_torch.item_at(torch.from_numpy(users), torch.from_numpy(points))[0].tolist() == free
        )


@given(case=HISTORIES, seed=st.integers(0, 2**32))
def test_draws_are_free_items(case: tuple[int, list[set[int]]], seed: int) -> None:
    n_items, histories = case
    sampler = sampler_of(n_items, histories)
    users = np.array(
        [user for user, known in enumerate(histories) if len(known) < n_items], dtype=np.int64
    )
    drawn = (
        sampler.to("cpu")
        .sample(torch.from_numpy(users), 20, torch.Generator().manual_seed(seed))
        .numpy()
    )
    by_numpy = sampler.sample_numpy(users, 20, np.random.default_rng(seed))
    for user, items in zip(np.r_[users, users], np.r_[drawn, by_numpy], strict=True):
        assert not set(items.tolist()) & histories[user]
        assert set(items.tolist()) <= set(range(n_items))
    for user in users:
        free = set(range(n_items)) - histories[user]
        distinct = sampler.sample_distinct(np.array([user]), len(free), np.random.default_rng(seed))
        assert sorted(distinct[0].tolist()) == sorted(free)


@given(known=st.sets(st.integers(0, 7), max_size=6), seed=st.integers(0, 2**16))
def test_free_items_are_drawn_alike(known: set[int], seed: int) -> None:
    sampler = sampler_of(8, [known])
    free = sorted(set(range(8)) - known)
    n = 4000
    for drawn in (
        sampler.sample_numpy(np.zeros(1, dtype=np.int64), n, np.random.default_rng(seed)),
        sampler.to("cpu")
        .sample(torch.zeros(1, dtype=torch.int64), n, torch.Generator().manual_seed(seed))
        .numpy(),
    ):
        counts = np.bincount(drawn[0], minlength=8)[free]
        # Six standard deviations of a binomial count: once in 10^9, and far less than a neighbour's double share.
        share = 1 / len(free)
        assert np.abs(counts - n * share).max() <= 6 * (n * share * (1 - share)) ** 0.5
