"""The sampler for torch is exact too, and its lines are those of the one for numpy."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare  # type: ignore[import-untyped]

from recsys.training.negatives import MAX_32_BIT, TorchNegativeSampler
from tests.negative_cases import CLUMP, HISTORIES, N_ITEMS, SEEN, WEIGHTS, index_of, line_of

DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
    ),
]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["uniform", "weighted"])
def test_every_point_has_its_item(weights: np.ndarray | None, device: str) -> None:
    sampler = TorchNegativeSampler(index_of(SEEN, N_ITEMS), weights, device)
    for user, seen in enumerate(SEEN):
        expected = line_of(seen, N_ITEMS, weights)
        mass = int(sampler.mass[user])
        assert mass == len(expected)
        users, points = torch.full((mass,), user), torch.arange(mass)[:, None]
        found = sampler.item_at(users.to(device), points.to(device))
        assert found.ravel().tolist() == expected


@given(case=HISTORIES, data=st.data())
@pytest.mark.parametrize("weighted", [False, True])
def test_each_point_of_a_line_is_an_unseen_item(
    weighted: bool, case: tuple[int, list[set[int]]], data: st.DataObject
) -> None:
    n_items, histories = case
    lengths = st.lists(st.integers(1, 5), min_size=n_items, max_size=n_items)
    weights = np.array(data.draw(lengths)) if weighted else None
    sampler = TorchNegativeSampler(index_of(histories, n_items), weights, "cpu")
    for user, seen in enumerate(histories):
        expected = line_of(seen, n_items, weights)
        assert sampler.mass[user] == len(expected)
        points = torch.arange(len(expected))[None, :]
        assert sampler.item_at(torch.tensor([user]), points)[0].tolist() == expected


@pytest.mark.parametrize("weighted", [False, True])
def test_seen_items_in_a_clump_are_stepped_over(weighted: bool) -> None:
    # The clump shares a cell of the line, whose length is chosen for seen items that lie apart.
    weights = np.where(np.arange(5000) % 7 == 0, 3, 1) if weighted else None
    sampler = TorchNegativeSampler(index_of([[], CLUMP, []], 5000), weights, "cpu")
    expected = line_of(CLUMP, 5000, weights)
    points = torch.arange(len(expected))[None, :]
    assert sampler.item_at(torch.tensor([1]), points)[0].tolist() == expected


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["uniform", "weighted"])
def test_unseen_items_are_drawn_by_weight(weights: np.ndarray | None, device: str) -> None:
    n = 20_000
    users = torch.arange(len(SEEN), device=device).repeat_interleave(10)
    sampler = TorchNegativeSampler(index_of(SEEN, N_ITEMS), weights, device)
    draws = sampler.sample(users, n // 10, torch.Generator(device).manual_seed(1))
    for user, seen in enumerate(SEEN):
        counts = np.bincount(draws[users == user].ravel().tolist(), minlength=N_ITEMS)
        unseen = line_of(seen, N_ITEMS, None)
        assert counts[seen].sum() == 0
        share = np.ones(len(unseen)) if weights is None else weights[unseen]
        assert len(unseen) == 1 or chisquare(counts[unseen], share / share.sum() * n).pvalue > 1e-4


@given(seen=st.sets(st.integers(0, 7), max_size=6), seed=st.integers(0, 2**16))
def test_unseen_items_are_drawn_alike(seen: set[int], seed: int) -> None:
    sampler = TorchNegativeSampler(index_of([seen], 8), None, "cpu")
    unseen, n = line_of(seen, 8, None), 4000
    drawn = sampler.sample(torch.tensor([0]), n, torch.Generator().manual_seed(seed))
    counts = np.bincount(drawn[0].numpy(), minlength=8)
    assert counts.sum() == counts[unseen].sum()
    # Six standard deviations of a binomial count: once in 10^9, and far less than a neighbour's
    # double share.
    share = 1 / len(unseen)
    assert np.abs(counts[unseen] - n * share).max() <= 6 * (n * share * (1 - share)) ** 0.5


def test_many_items_are_drawn_with_more_bits() -> None:
    n_items = MAX_32_BIT + 1
    sampler = TorchNegativeSampler(index_of([[0, 1, n_items - 1]], n_items), None, "cpu")
    draws = sampler.sample(torch.tensor([0]), 10_000, torch.Generator().manual_seed(0))
    assert draws.dtype == torch.int64
    assert 2 <= int(draws.min()) < n_items // 100
    assert n_items - n_items // 100 < int(draws.max()) < n_items - 1
