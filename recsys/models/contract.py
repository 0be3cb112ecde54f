"""The contract that every model keeps: two sides that meet in a score, and declared embeddings.

A model computes a user's side and an item's side apart and joins them in `score`, so that training computes the user's side once
a row and ranking computes all items' sides once.
"""

from abc import ABC, abstractmethod
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from recsys.kernels.lookup import Lookup, rows_of

SideName = Literal["user", "item"]


class Side(NamedTuple):
    """Contribution of users or of items to a score; the leading shape is that of the ids.

    `embeddings`: rows (..., d) of the embeddings, which L2 penalises. `factors`: the inputs of `score`, such as the factor of an
    inner product (..., d) or a share of the tower's first layer (..., 2d); a lookup where no copy of the rows is needed. `bias`
    (...,): None where the model has none.
    """

    embeddings: tuple[Tensor | Lookup, ...]
    factors: tuple[Tensor | Lookup, ...]
    bias: Tensor | None

    def rows(self, rows: slice) -> "Side":
        """Return the sides of some of the ids along the first axis, as views."""
        bias = None if self.bias is None else self.bias[rows]
        embeddings, factors = (
            tuple(rows_of(part)[rows] for part in parts)
            for parts in (self.embeddings, self.factors)
        )
        return Side(embeddings, factors, bias)

    def split(self, first: int) -> tuple["Side", "Side"]:
        """Return the sides of the first ids and of the others; one backward step joins their gradients."""
        biases = (None, None) if self.bias is None else _split_tensor(self.bias, first)
        embeddings, factors = (
            [_split(part, first) for part in parts] for parts in (self.embeddings, self.factors)
        )
        head, tail = (
            Side(
                tuple(part[end] for part in embeddings),
                tuple(part[end] for part in factors),
                biases[end],
            )
            for end in (0, 1)
        )
        return head, tail

    def unflatten(self, width: int) -> "Side":
        """Return the sides of a flat list of ids as rows of `width` (n, width, ...)."""
        bias = None if self.bias is None else self.bias.view(-1, width)
        embeddings, factors = (
            tuple(_unflatten(part, width) for part in parts)
            for parts in (self.embeddings, self.factors)
        )
        return Side(embeddings, factors, bias)


def _split(part: Tensor | Lookup, first: int) -> tuple[Tensor | Lookup, Tensor | Lookup]:
    if isinstance(part, Lookup):
        return Lookup(part.embedding, part.ids[:first]), Lookup(part.embedding, part.ids[first:])
    return _split_tensor(part, first)


def _split_tensor(part: Tensor, first: int) -> tuple[Tensor, Tensor]:
    # One operation for both, so that backward fills their gradients into one tensor.
    head, tail = torch.tensor_split(part, (first,))
    return head, tail


def _unflatten(part: Tensor | Lookup, width: int) -> Tensor | Lookup:
    if isinstance(part, Lookup):
        return Lookup(part.embedding, part.ids.view(-1, width))
    return part.view(-1, width, part.shape[-1])


class RowParameters(nn.Module):
    """Module whose parameters in `sides` have a row a user or a row an item, by parameter name.

    Training on a few rows of a large parameter relies on it: a parameter with such rows must be declared.
    """

    sides: dict[str, SideName]


class Model(nn.Module, ABC):
    """A variant of neural collaborative filtering.

    Its constructor takes `(config: ModelConfig, n_users: int, n_items: int, generator: torch.Generator)` and draws its first
    weights on the CPU from the generator alone.
    """

    @abstractmethod
    def user_side(self, user: Tensor) -> Side:
        """Return the side of users (B,) int64."""

    @abstractmethod
    def item_side(self, item: Tensor | None) -> Side:
        """Return the side of items (B, n) or (n,) int64, of all items in order for None."""

    @abstractmethod
    def score(self, user_side: Side, item_side: Side) -> Tensor:
        """Return the logits (B, n) of the sides of (B,) users and (B, n) or (n,) items."""

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        """Return the logits (B, n) of users (B,) and items (B, n) or (n,)."""
        return self.score(self.user_side(user), self.item_side(item))

    def row_parameters(self, side: SideName) -> list[str]:
        """Return the names of the parameters with a row a user, or a row an item."""
        return [
            f"{prefix}.{name}"
            for prefix, module in self.named_modules()
            if isinstance(module, RowParameters)
            for name, its_side in module.sides.items()
            if its_side == side
        ]
