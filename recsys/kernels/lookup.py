"""Rows of an embedding looked up by id, and their products and norms without copies of the rows.

Called by the models. An inner product reads a user's vector and an item's row once and returns one
number. Rows (B, n, d) that are copied out of the embedding, multiplied, and given gradients of the
same shape pass through memory five times. They exceed every cache, and beyond 32 MB the system has
to clear their pages each time. So on a CPU the products and their gradients are computed from the
embedding itself.
"""

import functools
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional


class Lookup(NamedTuple):
    """The rows of `embedding` (N, d) at `ids` (...) int64, in any order and with repetitions."""

    embedding: Tensor
    ids: Tensor

    def rows(self) -> Tensor:
        """Return a copy of the rows (..., d).

        The backward of `index_select` adds the rows 5 times as fast on a CPU as that of
        `nn.Embedding` (10,240 rows of 16 in 76 us against 390 us).
        """
        return self.embedding.index_select(0, self.ids.reshape(-1)).view(*self.ids.shape, -1)


def rows_of(rows: Tensor | Lookup) -> Tensor:
    """Return the rows (..., d) as a tensor: a copy if they are a lookup."""
    return rows.rows() if isinstance(rows, Lookup) else rows


def square_norms(rows: Tensor | Lookup) -> Tensor:
    """Return the squared norm (...) of each row (..., d)."""
    if isinstance(rows, Lookup) and len(rows.embedding) < rows.ids.numel():
        norms = rows.embedding.square().sum(-1)
        return norms.index_select(0, rows.ids.reshape(-1)).view(rows.ids.shape)
    return plain_square_norms(rows)


def plain_square_norms(rows: Tensor | Lookup) -> Tensor:
    """Return what `square_norms` returns, from a copy of the rows."""
    return rows_of(rows).square().sum(-1)


def unit_rows(rows: Tensor | Lookup) -> Tensor | Lookup:
    """Return the rows (..., d) at length 1, a row of zeros as it is."""
    if isinstance(rows, Lookup) and len(rows.embedding) < rows.ids.numel():
        return Lookup(functional.normalize(rows.embedding, dim=-1), rows.ids)
    return functional.normalize(rows_of(rows), dim=-1)


MIN_VALUES = 1 << 18
"""Least number of values of a copy that is avoided. A smaller copy stays in a core's cache, and
needs fewer operations."""


def inner_product(user: Tensor | Lookup, item: Tensor | Lookup) -> Tensor:
    """Return the inner products (B, n) of vectors (B, d) with vectors (B, n, d) or (n, d)."""
    if (
        isinstance(item, Lookup)
        and item.ids.ndim == 2
        and item.ids.numel() * item.embedding.shape[1] >= MIN_VALUES
        and item.ids.device.type == "cpu"
    ):
        apply: Callable[..., Tensor] = _InnerProducts.apply
        return apply(rows_of(user), item.embedding, item.ids)
    return plain_inner_product(user, item)


def plain_inner_product(user: Tensor | Lookup, item: Tensor | Lookup) -> Tensor:
    """Return what `inner_product` returns, from a copy of the rows."""
    vector, rows = rows_of(user), rows_of(item)
    if rows.ndim == 2:
        return vector @ rows.T
    return (vector.unsqueeze(1) * rows).sum(-1)


class _InnerProducts(torch.autograd.Function):
    """Inner products (B, n) of vectors (B, d) with the rows of an embedding (N, d) at ids (B, n).

    The products are the entries of a dense matrix (B, N) at the indices of a sparse one. A gradient
    is a weighted sum of rows. Neither direction copies the rows.
    """

    @staticmethod
    def forward(ctx: Any, vector: Tensor, embedding: Tensor, ids: Tensor) -> Tensor:
        ctx.save_for_backward(vector, embedding, ids)
        _expect_beta_warning()
        starts = torch.arange(0, ids.numel() + 1, ids.shape[1])
        shape = (len(ids), len(embedding))
        indices = torch.sparse_csr_tensor(
            starts, ids.reshape(-1), vector.new_zeros(ids.numel()), shape, check_invariants=False
        )
        products = torch.sparse.sampled_addmm(indices, vector, embedding.T, beta=0.0)
        values: Tensor = products.values().view(ids.shape)
        return values

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        vector, embedding, ids = ctx.saved_tensors
        of_vector = functional.embedding_bag(
            ids, embedding, mode="sum", per_sample_weights=gradient.contiguous()
        )
        order, starts = _sort_by_id(ids, len(embedding))
        weights = gradient.reshape(-1).index_select(0, order)
        rows = order.div_(ids.shape[1], rounding_mode="floor")
        of_embedding = functional.embedding_bag(
            rows, vector, starts, mode="sum", per_sample_weights=weights
        )
        return of_vector, of_embedding, None


def _sort_by_id(ids: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Return the indices of `ids` (...) in the order of the ids, and where each id begins (n,).

    Each id is below `n`.
    """
    flat = ids.reshape(-1)
    bits = len(flat).bit_length()
    # Id and index in one number, sorted by numpy: for fewer than 2^15 of them torch takes ten
    # times as long.
    keys = (flat << bits).add_(torch.arange(len(flat)))
    keys.numpy().sort()
    counts = torch.bincount(flat, minlength=n)
    return keys.bitwise_and_((1 << bits) - 1), counts.cumsum(0).sub_(counts)


@functools.cache
def _expect_beta_warning() -> None:
    """Trigger and hide the warning, given once, that torch's sparse matrices may still change."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        torch.sparse_csr_tensor(
            torch.tensor([0, 1]), torch.tensor([0]), torch.zeros(1), (1, 1), check_invariants=False
        )
