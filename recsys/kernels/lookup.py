"""Rows of a table that a batch of ids asks for, and what a model needs of them without copying them.

An inner product reads a user's vector and an item's row once and leaves one number. Rows (B, n, d) that are copied out of the
table, multiplied, and given gradients of the same shape pass through memory five times, past every cache and, beyond 32 MB, on
pages that the system has to clear each time. So on a CPU the products are computed from the table itself; so are their gradients.
"""

import functools
import warnings
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional


class Lookup(NamedTuple):
    """The rows of `table` (N, d) at `ids` (...), which may lie anywhere and repeat."""

    table: Tensor
    ids: Tensor

    def rows(self) -> Tensor:
        """A copy of the rows (..., d).

        `index_select` and not `nn.Embedding`: its backward adds the rows 5 times as fast on a CPU (10,240 rows of 16 in 76 us
        against 390 us).
        """
        return self.table.index_select(0, self.ids.reshape(-1)).view(*self.ids.shape, -1)


def rows_of(part: Tensor | Lookup) -> Tensor:
    """The rows themselves, copied if they were not."""
    return part.rows() if isinstance(part, Lookup) else part


def square_norms(part: Tensor | Lookup) -> Tensor:
    """The squared norm (...) of each row (..., d)."""
    if isinstance(part, Lookup) and len(part.table) < part.ids.numel():
        return (
            part.table.square().sum(-1).index_select(0, part.ids.reshape(-1)).view(part.ids.shape)
        )
    return rows_of(part).square().sum(-1)


MIN_VALUES = 1 << 18
"""Values of a copy from which on it is spared: smaller ones stay in a core's own cache, and their operations are fewer."""


def inner_product(user: Tensor | Lookup, item: Tensor | Lookup) -> Tensor:
    """Vectors (B, d) with vectors (B, n, d) or (n, d) -> inner products (B, n)."""
    vector = rows_of(user)
    if (
        isinstance(item, Lookup)
        and item.ids.ndim == 2
        and _is_large(item)
        and item.ids.device.type == "cpu"
    ):
        products: Tensor = _InnerProducts.apply(vector, item.table, item.ids)  # type: ignore[no-untyped-call]
        return products
    rows = rows_of(item)
    if rows.ndim == 2:
        return vector @ rows.T
    return (vector.unsqueeze(1) * rows).sum(-1)


def _is_large(lookup: Lookup) -> bool:
    return lookup.ids.numel() * lookup.table.shape[1] >= MIN_VALUES


class _InnerProducts(torch.autograd.Function):
    """Vectors (B, d), a table (N, d), ids (B, n) -> inner products (B, n), without a copy of the rows in either direction.

    The products are those of a dense matrix at the places of a sparse one; a gradient is a weighted sum of rows.
    """

    @staticmethod
    def forward(ctx: Any, vector: Tensor, table: Tensor, ids: Tensor) -> Tensor:
        ctx.save_for_backward(vector, table, ids)
        _expect_beta_warning()
        starts = torch.arange(0, ids.numel() + 1, ids.shape[1])
        shape = (len(ids), len(table))
        places = torch.sparse_csr_tensor(
            starts, ids.reshape(-1), vector.new_zeros(ids.numel()), shape, check_invariants=False
        )
        products: Tensor = (
            torch.sparse.sampled_addmm(places, vector, table.T, beta=0.0).values().view(ids.shape)
        )
        return products

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        vector, table, ids = ctx.saved_tensors
        of_vector = functional.embedding_bag(
            ids, table, mode="sum", per_sample_weights=gradient.contiguous()
        )
        order, starts = _sort_by_id(ids, len(table))
        weights = gradient.reshape(-1).index_select(0, order)
        rows = order.div_(ids.shape[1], rounding_mode="floor")
        of_table = functional.embedding_bag(
            rows, vector, starts, mode="sum", per_sample_weights=weights
        )
        return of_vector, of_table, None


def _sort_by_id(ids: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """The places of `ids` (...), each below n, in the order of the ids, and where each of the n ids begins among them."""
    flat = ids.reshape(-1)
    bits = len(flat).bit_length()
    # Id and place in one number, sorted by numpy: torch takes ten times as long for fewer than 2^15 of them.
    keys = (flat << bits).add_(torch.arange(len(flat)))
    keys.numpy().sort()
    counts = torch.bincount(flat, minlength=n)
    return keys.bitwise_and_((1 << bits) - 1), counts.cumsum(0).sub_(counts)


@functools.cache
def _expect_beta_warning() -> None:
    """Let torch say once, unheard, that its sparse matrices may still change."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        torch.sparse_csr_tensor(
            torch.tensor([0, 1]), torch.tensor([0]), torch.zeros(1), (1, 1), check_invariants=False
        )
