"""Inner products from the table itself: their values and gradients, and the lists that they are computed from."""

import pytest
import torch
from torch import Tensor

from recsys.kernels import lookup
from recsys.kernels.lookup import Lookup, inner_product, square_norms

TABLE = [[1.0, 2.0], [3.0, -1.0], [0.5, 0.0], [7.0, 7.0]]
IDS = [[1, 0, 1], [2, 1, 2]]


@pytest.fixture(autouse=True)
def _always_from_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "MIN_VALUES", 0)


def test_products_and_gradients_by_hand() -> None:
    vector = torch.tensor([[1.0, 1.0], [2.0, 4.0]], requires_grad=True)
    table = torch.tensor(TABLE, requires_grad=True)
    products = inner_product(vector, Lookup(table, torch.tensor(IDS)))
    assert products.tolist() == [[2, 3, 2], [1, 2, 1]]
    torch.autograd.backward(
        (products * torch.tensor([[1.0, 10.0, 100.0], [1000.0, 0.0, 2000.0]])).sum()
    )
    assert vector.grad is not None
    assert table.grad is not None
    # User 0: 101 times row 1 and 10 times row 0; user 1: 3000 times row 2.
    assert vector.grad.tolist() == [[101 * 3 + 10, -101 + 20], [1500, 0]]
    # Row 3 was not looked up, row 1 by both users.
    assert table.grad.tolist() == [[10, 10], [101, 101], [6000, 12000], [0, 0]]


@pytest.mark.parametrize(
    ("n_rows", "n_ids", "n_table", "dim"),
    [(5, 3, 4, 2), (1, 1, 1, 1), (40, 7, 100, 3), (6, 1, 9, 5)],
)
def test_gradients_are_those_of_autograd(n_rows: int, n_ids: int, n_table: int, dim: int) -> None:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(n_table, (n_ids, n_rows), generator=generator).T  # not contiguous

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()

    vector, table = draw(n_rows, dim), draw(n_table, dim)
    upstream = torch.randn(n_ids, n_rows, generator=generator, dtype=torch.float64).T
    products, copied = (
        inner_product(vector, Lookup(table, ids)),
        (vector.unsqueeze(1) * table[ids]).sum(-1),
    )
    torch.testing.assert_close(products, copied)
    found = torch.autograd.grad(products, (vector, table), upstream)
    torch.testing.assert_close(found, torch.autograd.grad(copied, (vector, table), upstream))


def test_small_ones_and_those_from_the_table_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    vector, looked_up = (
        torch.tensor([[1.0, 1.0], [2.0, 4.0]]),
        Lookup(torch.tensor(TABLE), torch.tensor(IDS)),
    )
    from_table = inner_product(vector, looked_up)
    monkeypatch.setattr(lookup, "MIN_VALUES", 1 << 18)
    assert torch.equal(inner_product(vector, looked_up), from_table)


@pytest.mark.parametrize(
    "ids", [[[3, 0]], [[3, 0], [1, 1], [0, 3]]], ids=["fewer than rows", "more than rows"]
)
def test_square_norms_by_row_and_by_table(ids: list[list[int]]) -> None:
    norms = [5.0, 10.0, 0.25, 98.0]
    found = square_norms(Lookup(torch.tensor(TABLE), torch.tensor(ids)))
    assert found.tolist() == [[norms[at] for at in row] for row in ids]
    assert square_norms(torch.tensor(TABLE)).tolist() == norms
