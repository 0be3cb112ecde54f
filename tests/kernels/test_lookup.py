"""Inner products and norms from the embedding itself equal those of copied rows."""

import pytest
import torch
from torch import Tensor

from recsys.kernels import lookup
from recsys.kernels.lookup import (
    Lookup,
    inner_product,
    plain_inner_product,
    plain_square_norms,
    square_norms,
    unit_rows,
)

EMBEDDING = [[1.0, 2.0], [3.0, -1.0], [0.5, 0.0], [7.0, 7.0]]
IDS = [[1, 0, 1], [2, 1, 2]]


@pytest.fixture(autouse=True)
def _never_from_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "MIN_VALUES", 0)


def test_products_and_gradients_by_hand() -> None:
    vector = torch.tensor([[1.0, 1.0], [2.0, 4.0]], requires_grad=True)
    embedding = torch.tensor(EMBEDDING, requires_grad=True)
    products = inner_product(vector, Lookup(embedding, torch.tensor(IDS)))
    assert products.tolist() == [[2, 3, 2], [1, 2, 1]]
    weights = torch.tensor([[1.0, 10.0, 100.0], [1000.0, 0.0, 2000.0]])
    torch.autograd.backward((products * weights).sum())
    assert vector.grad is not None
    assert embedding.grad is not None
    # User 0: 101 times row 1 and 10 times row 0; user 1: 3000 times row 2.
    assert vector.grad.tolist() == [[101 * 3 + 10, -101 + 20], [1500, 0]]
    # Row 3 was not looked up, row 1 by both users.
    assert embedding.grad.tolist() == [[10, 10], [101, 101], [6000, 12000], [0, 0]]


@pytest.mark.parametrize(
    ("n_rows", "n_ids", "n_embedding", "dim"),
    [(5, 3, 4, 2), (1, 1, 1, 1), (40, 7, 100, 3), (6, 1, 9, 5)],
)
def test_products_and_gradients_equal_those_of_the_plain_version(
    n_rows: int, n_ids: int, n_embedding: int, dim: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(n_embedding, (n_ids, n_rows), generator=generator).T  # not contiguous

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()

    vector, embedding = draw(n_rows, dim), draw(n_embedding, dim)
    upstream = torch.randn(n_ids, n_rows, generator=generator, dtype=torch.float64).T
    products, expected = (
        product(vector, Lookup(embedding, ids)) for product in (inner_product, plain_inner_product)
    )
    torch.testing.assert_close(products, expected)
    found = torch.autograd.grad(products, (vector, embedding), upstream)
    torch.testing.assert_close(found, torch.autograd.grad(expected, (vector, embedding), upstream))


def test_a_small_lookup_has_the_same_products(monkeypatch: pytest.MonkeyPatch) -> None:
    vector = torch.tensor([[1.0, 1.0], [2.0, 4.0]])
    looked_up = Lookup(torch.tensor(EMBEDDING), torch.tensor(IDS))
    from_embedding = inner_product(vector, looked_up)
    monkeypatch.setattr(lookup, "MIN_VALUES", 1 << 18)
    assert torch.equal(inner_product(vector, looked_up), from_embedding)


@pytest.mark.parametrize(
    "ids", [[[3, 0]], [[3, 0], [1, 1], [0, 3]]], ids=["fewer than rows", "more than rows"]
)
def test_square_norms_of_rows_and_of_lookups(ids: list[list[int]]) -> None:
    norms = [5.0, 10.0, 0.25, 98.0]
    looked_up = Lookup(torch.tensor(EMBEDDING), torch.tensor(ids))
    for function in (square_norms, plain_square_norms):
        assert function(looked_up).tolist() == [[norms[item] for item in row] for row in ids]
        assert function(torch.tensor(EMBEDDING)).tolist() == norms


@pytest.mark.parametrize("ids", [[[1, 0, 1], [2, 1, 4]], [1, 0, 4]])
def test_unit_rows_keep_their_direction_and_a_row_of_zeros(
    ids: list[list[int]] | list[int],
) -> None:
    embedding = torch.tensor([[3.0, 4.0], [0.0, -2.0], [5.0, 0.0], [9.0, 9.0], [0.0, 0.0]])
    unit = torch.tensor([[0.6, 0.8], [0.0, -1.0], [1.0, 0.0], [9.0, 9.0], [0.0, 0.0]])
    found = lookup.rows_of(unit_rows(Lookup(embedding, torch.tensor(ids))))
    torch.testing.assert_close(found, unit[torch.tensor(ids)])
    torch.testing.assert_close(unit_rows(embedding[:2]), unit[:2])
