"""What the models have in common: tables, intercepts, the tower, and the two sides of a score.

A model computes a user's side and an item's side apart and joins them in `score`, so that training computes the user's side once
a row and ranking computes all items' sides once. Every part takes the generator that its first weights are drawn from.
"""

import itertools
from typing import NamedTuple

import torch
from torch import Tensor, nn

from recsys.models.lookup import Lookup, rows_of

ROW_PARAMETERS = {"user": ("users.weight", "intercepts.user"), "item": ("items.weight", "intercepts.item")}
"""How the names of the parameters end that hold a row a user or a row an item."""


class Side(NamedTuple):
    """What users or items bring to a score; the leading shape is that of the ids.

    `embeddings`: the tables' rows (..., d), which L2 penalises. `factors`: what `score` joins, such as the factor of an inner
    product (..., d) or a share of the tower's first layer (..., 2d); a lookup where nothing needs a copy of the rows.
    `intercept` (...,): None where the model has none.
    """

    embeddings: tuple[Tensor | Lookup, ...]
    factors: tuple[Tensor | Lookup, ...]
    intercept: Tensor | None

    def rows(self, rows: slice) -> "Side":
        """The sides of some of the ids along the first axis, as views."""
        intercept = None if self.intercept is None else self.intercept[rows]
        embeddings, factors = (tuple(rows_of(part)[rows] for part in parts) for parts in (self.embeddings, self.factors))
        return Side(embeddings, factors, intercept)

    def split(self, first: int) -> tuple["Side", "Side"]:
        """The sides of the first ids and those of the others; one backward step joins their gradients."""
        intercepts = (None, None) if self.intercept is None else _split_tensor(self.intercept, first)
        embeddings, factors = ([_split(part, first) for part in parts] for parts in (self.embeddings, self.factors))
        head, tail = (
            Side(tuple(part[end] for part in embeddings), tuple(part[end] for part in factors), intercepts[end]) for end in (0, 1)
        )
        return head, tail

    def unflatten(self, width: int) -> "Side":
        """The sides of a flat list of ids as rows of `width` (n, width, ...)."""
        intercept = None if self.intercept is None else self.intercept.view(-1, width)
        embeddings, factors = (tuple(_unflatten(part, width) for part in parts) for parts in (self.embeddings, self.factors))
        return Side(embeddings, factors, intercept)


def _split(part: Tensor | Lookup, first: int) -> tuple[Tensor | Lookup, Tensor | Lookup]:
    if isinstance(part, Lookup):
        return Lookup(part.table, part.ids[:first]), Lookup(part.table, part.ids[first:])
    return _split_tensor(part, first)


def _split_tensor(part: Tensor, first: int) -> tuple[Tensor, Tensor]:
    # One operation for both, so that backward fills their gradients into one tensor.
    head, tail = torch.tensor_split(part, (first,))
    return head, tail


def _unflatten(part: Tensor | Lookup, width: int) -> Tensor | Lookup:
    if isinstance(part, Lookup):
        return Lookup(part.table, part.ids.view(-1, width))
    return part.view(-1, width, part.shape[-1])


class Table(nn.Module):
    """Rows (n, d) drawn from N(0, std), looked up by id."""

    def __init__(self, n: int, dim: int, std: float, generator: torch.Generator) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n, dim).normal_(0.0, std, generator=generator))

    def lookup(self, ids: Tensor | None) -> Tensor | Lookup:
        """Ids (...,) int64 -> their rows (..., d), not copied yet; None -> all rows."""
        return self.weight if ids is None else Lookup(self.weight, ids)

    def forward(self, ids: Tensor | None) -> Tensor:
        """Ids (...,) int64 -> a copy of their rows (..., d); None -> all rows, not copied."""
        return rows_of(self.lookup(ids))


class Intercepts(nn.Module):
    """One intercept for all, one a user and one an item, all 0 at first; nothing where they are not wanted (`model.bias`)."""

    def __init__(self, wanted: bool, n_users: int, n_items: int) -> None:
        super().__init__()
        self.wanted = wanted
        if wanted:
            self.everywhere = nn.Parameter(torch.zeros(()))
            self.user = nn.Parameter(torch.zeros(n_users))
            self.item = nn.Parameter(torch.zeros(n_items))

    def of_user(self, user: Tensor) -> Tensor | None:
        """Users (B,) -> the user's intercept plus the one for all (B,)."""
        return self.user.index_select(0, user) + self.everywhere if self.wanted else None

    def of_item(self, item: Tensor | None) -> Tensor | None:
        """Items (...,), None for all -> their intercepts (...,)."""
        if not self.wanted:
            return None
        return self.item if item is None else self.item.index_select(0, item.reshape(-1)).view(item.shape)


class Tower(nn.Module):
    """Hidden ReLU layers on [u; i], of widths 2d, d, d/2 and so on, each at least 1.

    The first layer is split as W_u u + W_i i + b, so that its matrix products are a user's and an item's and not a pair's.
    Source: He et al. 2017, arXiv:1708.05031, eq. 10, with hidden widths halved from layer to layer.
    """

    def __init__(self, dim: int, n_layers: int, dropout: float, generator: torch.Generator) -> None:
        super().__init__()
        widths = [max(1, 2 * dim >> layer) for layer in range(n_layers)]
        first = _weight(2 * dim, widths[0], generator)
        self.of_user = nn.Parameter(first[:, :dim].clone())
        self.of_item = nn.Parameter(first[:, dim:].clone())
        self.weights = nn.ParameterList(_weight(n, m, generator) for n, m in itertools.pairwise(widths))
        self.biases = nn.ParameterList(torch.zeros(width) for width in widths)
        self.dropout = nn.Dropout(dropout)
        self.width = widths[-1]

    def user_share(self, embedding: Tensor) -> Tensor:
        """Embeddings (B, d) -> the first layer's W_u u + b (B, 2d)."""
        return nn.functional.linear(embedding, self.of_user, self.biases[0])

    def item_share(self, embedding: Tensor) -> Tensor:
        """Embeddings (..., d) -> the first layer's W_i i (..., 2d)."""
        return nn.functional.linear(embedding, self.of_item)

    def forward(self, user_share: Tensor, item_share: Tensor) -> Tensor:
        """Shares (B, 2d) and (B, n, 2d) or (n, 2d) -> the last hidden layer (B, n, width)."""
        hidden: Tensor = self.dropout((user_share.unsqueeze(1) + item_share).relu_())
        layer = _layer_of_all_items if item_share.ndim == 2 and item_share.device.type == "cpu" else nn.functional.linear
        for weight, bias in zip(self.weights, self.biases[1:], strict=True):
            hidden = self.dropout(layer(hidden, weight, bias).relu_())
        return hidden


def _layer_of_all_items(hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`nn.functional.linear` for (B, n, n_in) as a convolution of B images of 1 x n, their channels last.

    For it torch asks oneDNN in place of its matrix library, which does without AVX-512 on some processors, and which needs the
    bias copied beforehand. With fewer than 16 images torch does neither, and it takes a few per cent longer.
    """
    images = hidden.transpose(1, 2).unsqueeze(2)  # (B, n_in, 1, n)
    return nn.functional.conv2d(images, weight[:, :, None, None], bias).squeeze(2).transpose(1, 2)


def _weight(n_in: int, n_out: int, generator: torch.Generator) -> Tensor:
    """Uniform weights (n_out, n_in) that keep the scale through a ReLU. Source: He et al. 2015, arXiv:1502.01852, eq. 10."""
    bound = (6 / n_in) ** 0.5
    return torch.empty(n_out, n_in).uniform_(-bound, bound, generator=generator)


def output_weight(width: int, generator: torch.Generator) -> Tensor:
    """First weights (width,) of a linear layer to one value, of variance 1 / width. Source: LeCun et al. 1998, sec. 4.6."""
    return torch.empty(width).normal_(0.0, width**-0.5, generator=generator)


def add_intercepts(logits: Tensor, user_side: Side, item_side: Side) -> Tensor:
    """Logits (B, n) plus both sides' intercepts, where there are any."""
    if user_side.intercept is None or item_side.intercept is None:
        return logits
    return logits + user_side.intercept.unsqueeze(1) + item_side.intercept
