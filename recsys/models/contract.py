"""Contract of a model: a side for users, a side for items, and the score that joins them.

Training computes a user's side once per row or per user of a batch, and ranking computes all
items' sides once.
"""

from abc import ABC, abstractmethod
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from recsys.kernels.lookup import Lookup, rows_of, unit_rows

SideName = Literal["user", "item"]


class Side(NamedTuple):
    """Contribution of users or of items to a score; the leading shape is the shape of the ids.

    `embeddings`: rows (..., d) of the embeddings, which L2 penalises. `factors`: the inputs of
    `score`, such as the factor of an inner product (..., d) or a share of the tower's first layer
    (..., 2d); a lookup if no copy of the rows is needed. `bias` (...,): None if the model has none.
    `members`: those of an ensemble, which is not trained: only `rows` keeps them. `penalty` ():
    what the items of a batch add to its loss, None for nothing; sides made from this one lack it.
    """

    embeddings: tuple[Tensor | Lookup, ...]
    factors: tuple[Tensor | Lookup, ...]
    bias: Tensor | None
    members: tuple["Side", ...] = ()
    penalty: Tensor | None = None

    def rows(self, rows: slice) -> "Side":
        """Return the sides of some of the ids along the first axis, as views."""
        bias = None if self.bias is None else self.bias[rows]
        embeddings, factors = (
            tuple(rows_of(values)[rows] for values in group)
            for group in (self.embeddings, self.factors)
        )
        return Side(embeddings, factors, bias, tuple(side.rows(rows) for side in self.members))

    def split(self, first: int) -> tuple["Side", "Side"]:
        """Return the sides of the first ids and of the others.

        Backward joins their gradients in one step.
        """
        biases = (None, None) if self.bias is None else _split_tensor(self.bias, first)
        embeddings, factors = (
            [_split(values, first) for values in group] for group in (self.embeddings, self.factors)
        )
        head, tail = (
            Side(
                tuple(pair[end] for pair in embeddings),
                tuple(pair[end] for pair in factors),
                biases[end],
            )
            for end in (0, 1)
        )
        return head, tail

    def unflatten(self, width: int) -> "Side":
        """Return the sides of a flat list of ids as rows of `width` (n, width, ...)."""
        bias = None if self.bias is None else self.bias.view(-1, width)
        embeddings, factors = (
            tuple(_unflatten(values, width) for values in group)
            for group in (self.embeddings, self.factors)
        )
        return Side(embeddings, factors, bias)


def _split(values: Tensor | Lookup, first: int) -> tuple[Tensor | Lookup, Tensor | Lookup]:
    if isinstance(values, Lookup):
        embedding, ids = values
        return Lookup(embedding, ids[:first]), Lookup(embedding, ids[first:])
    return _split_tensor(values, first)


def _split_tensor(values: Tensor, first: int) -> tuple[Tensor, Tensor]:
    # One operation for both, so that backward writes their gradients into one tensor.
    head, tail = torch.tensor_split(values, (first,))
    return head, tail


def _unflatten(values: Tensor | Lookup, width: int) -> Tensor | Lookup:
    if isinstance(values, Lookup):
        return Lookup(values.embedding, values.ids.view(-1, width))
    return values.view(-1, width, values.shape[-1])


class RowParameters(nn.Module):
    """Module that declares in `sides`, by name, its parameters with a row per user or per item.

    The optimiser updates only a batch's rows of a large parameter, so it has to know of each, and
    of each buffer with such rows that training reads.
    """

    sides: dict[str, SideName]


class Model(nn.Module, ABC):
    """Variant of neural collaborative filtering.

    Its constructor takes `(config: ModelConfig, n_users: int, n_items: int, generator:
    torch.Generator)` and draws its initial weights on the CPU from the generator alone.
    `state_dict` has the names that files use.

    `has_cosine_scores`: the scores are cosines, which the loss divides by `training.temperature`.
    `starts_with_least_squares`: gradient descent starts from `users.weight` and `items.weight` of a
    few epochs of least squares. `item_products`: multiplications of an item's side in training,
    once for each item of a batch.
    """

    has_cosine_scores = False
    starts_with_least_squares = False
    item_products = 0

    def __init__(self) -> None:
        super().__init__()
        self.register_state_dict_post_hook(_to_file_names)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_from_file_names)  # type: ignore[no-untyped-call]

    @abstractmethod
    def user_side(self, user: Tensor) -> Side:
        """Return the side of users (B,) int64."""

    @abstractmethod
    def item_side(self, item: Tensor | None) -> Side:
        """Return the side of items (B, n) or (n,) int64, of all items in order for None."""

    @abstractmethod
    def score(self, user_side: Side, item_side: Side) -> Tensor:
        """Return the scores (B, n) of the sides of (B,) users and (B, n) or (n,) items."""

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        """Return the scores (B, n) of users (B,) and items (B, n) or (n,)."""
        return self.score(self.user_side(user), self.item_side(item))

    def begin_training(self, generator: torch.Generator) -> None:
        """Prepare for the first step of gradient descent; by default do nothing."""

    def end_segment(self, generator: torch.Generator, *, ends_epoch: bool) -> None:
        """Update what has no gradient, after each segment; by default do nothing."""

    def end_training(self) -> None:
        """Drop what only training needs, in place; by default do nothing.

        The model then scores as in evaluation mode. A saved model has this form.
        """

    def metrics(self) -> dict[str, float]:
        """Return what the metrics of an epoch say of the model; by default nothing."""
        return {}

    def factor_of(self, rows: Tensor | Lookup) -> Tensor | Lookup:
        """Return the factor of an inner product, given rows (..., d): of length 1 for a cosine."""
        return unit_rows(rows) if self.has_cosine_scores else rows

    def row_parameters(self, side: SideName) -> list[str]:
        """Return the names of the parameters with a row per user, or a row per item."""
        parameters = dict(self.named_parameters())
        return [name for name in self._row_names(side) if name in parameters]

    def row_buffers(self, side: SideName) -> list[str]:
        """Return the names of the buffers that training reads by user, or by item."""
        buffers = dict(self.named_buffers())
        return [name for name in self._row_names(side) if name in buffers]

    def _row_names(self, side: SideName) -> list[str]:
        return [
            f"{prefix}.{name}"
            for prefix, module in self.named_modules()
            if isinstance(module, RowParameters)
            for name, its_side in module.sides.items()
            if its_side == side
        ]


_BIASES, _BIASES_IN_FILES = "biases.", "intercepts."
"""Prefix of the names of a model's biases, and its older form, which saved models and checkpoints
keep."""


def _to_file_names(_: nn.Module, state: dict[str, Any], prefix: str, *__: Any) -> None:
    _rename(state, prefix + _BIASES, prefix + _BIASES_IN_FILES)


def _from_file_names(_: nn.Module, state: dict[str, Any], prefix: str, *__: Any) -> None:
    _rename(state, prefix + _BIASES_IN_FILES, prefix + _BIASES)


def _rename(state: dict[str, Any], old: str, new: str) -> None:
    """Rename, in place, the tensors whose names begin with `old`."""
    for name in [name for name in state if name.startswith(old)]:
        state[new + name.removeprefix(old)] = state.pop(name)
