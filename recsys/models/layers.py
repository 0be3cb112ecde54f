"""Layers that the models share: embeddings, biases and the tower."""

import itertools

import torch
from torch import Tensor, nn

from recsys.kernels.lookup import Lookup, rows_of
from recsys.models.contract import RowParameters, Side, SideName


class Embedding(RowParameters):
    """Rows (n, d) of users or of items, looked up by id; initially drawn from N(0, std^2)."""

    def __init__(
        self, side: SideName, n: int, dim: int, std: float, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.sides = {"weight": side}
        self.weight = nn.Parameter(torch.empty(n, dim).normal_(0.0, std, generator=generator))

    def lookup(self, ids: Tensor | None) -> Tensor | Lookup:
        """Return the rows (..., d) of ids (...,) int64 as a lookup, or all rows (n, d) for None."""
        return self.weight if ids is None else Lookup(self.weight, ids)

    def forward(self, ids: Tensor | None) -> Tensor:
        """Return a copy of the rows (..., d) of ids (...,) int64, or all rows (n, d) for None."""
        return rows_of(self.lookup(ids))


class Biases(RowParameters):
    """A global bias, one per user and one per item, all 0 at first; none if not `enabled`."""

    def __init__(self, enabled: bool, n_users: int, n_items: int) -> None:
        super().__init__()
        self.enabled = enabled
        self.sides = {}
        if enabled:
            self.sides = {"user": "user", "item": "item"}
            self.everywhere = nn.Parameter(torch.zeros(()))
            self.user = nn.Parameter(torch.zeros(n_users))
            self.item = nn.Parameter(torch.zeros(n_items))

    def of_user(self, user: Tensor) -> Tensor | None:
        """Return the bias of users (B,) plus the global one (B,), None if there are none."""
        return self.user.index_select(0, user) + self.everywhere if self.enabled else None

    def of_item(self, item: Tensor | None) -> Tensor | None:
        """Return the biases (...,) of items (...,), of all for None; None if there are none."""
        return _biases_at(self.item, item) if self.enabled else None


class ItemBiases(RowParameters):
    """A bias per item, all 0 at first; none if not `enabled`."""

    def __init__(self, enabled: bool, n_items: int) -> None:
        super().__init__()
        self.enabled = enabled
        self.sides = {}
        if enabled:
            self.sides = {"item": "item"}
            self.item = nn.Parameter(torch.zeros(n_items))

    def of_item(self, item: Tensor | None) -> Tensor | None:
        """Return the biases (...,) of items (...,), of all for None; None if there are none."""
        return _biases_at(self.item, item) if self.enabled else None


def _biases_at(biases: Tensor, ids: Tensor | None) -> Tensor:
    if ids is None:
        return biases
    return biases.index_select(0, ids.reshape(-1)).view(ids.shape)


class Tower(nn.Module):
    """Hidden ReLU layers on [u; i], of widths 2d, d, d/2 and so on, each at least 1.

    The first layer is computed as W_u u + W_i i + b, so that its matrix products are once per user
    and once per item, not once per pair.
    Source: He et al. 2017, arXiv:1708.05031, eq. 10, with hidden widths halved from layer to layer.
    """

    def __init__(self, dim: int, n_layers: int, dropout: float, generator: torch.Generator) -> None:
        super().__init__()
        widths = [max(1, 2 * dim >> layer) for layer in range(n_layers)]
        first = _weight(2 * dim, widths[0], generator)
        self.of_user = nn.Parameter(first[:, :dim].clone())
        self.of_item = nn.Parameter(first[:, dim:].clone())
        self.weights = nn.ParameterList(
            _weight(n, m, generator) for n, m in itertools.pairwise(widths)
        )
        self.biases = nn.ParameterList(torch.zeros(width) for width in widths)
        self.dropout = nn.Dropout(dropout)
        self.width = widths[-1]

    def user_share(self, embedding: Tensor) -> Tensor:
        """Return the first layer's W_u u + b (B, 2d) of embeddings (B, d)."""
        return nn.functional.linear(embedding, self.of_user, self.biases[0])

    def item_share(self, embedding: Tensor) -> Tensor:
        """Return the first layer's W_i i (..., 2d) of embeddings (..., d)."""
        return nn.functional.linear(embedding, self.of_item)

    def forward(self, user_share: Tensor, item_share: Tensor) -> Tensor:
        """Return the last hidden layer (B, n, width).

        The shares are (B, 2d) and (B, n, 2d) or (n, 2d).
        """
        hidden: Tensor = self.dropout((user_share.unsqueeze(1) + item_share).relu_())
        layer = (
            _layer_of_all_items
            if item_share.ndim == 2 and item_share.device.type == "cpu"
            else nn.functional.linear
        )
        for weight, bias in zip(self.weights, self.biases[1:], strict=True):
            hidden = self.dropout(layer(hidden, weight, bias).relu_())
        return hidden


def _layer_of_all_items(hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return `nn.functional.linear` of (B, n, n_in), by a convolution of B images of 1 x n.

    The channels of the images are last. torch computes convolutions with oneDNN. Its matrix library
    does not use AVX-512 on some processors, and needs a copy of the bias beforehand. With fewer
    than 16 images torch does not use oneDNN, and this takes a few per cent longer.
    """
    images = hidden.transpose(1, 2).unsqueeze(2)  # (B, n_in, 1, n)
    return nn.functional.conv2d(images, weight[:, :, None, None], bias).squeeze(2).transpose(1, 2)


def _weight(n_in: int, n_out: int, generator: torch.Generator) -> Tensor:
    """Return uniform weights (n_out, n_in) that keep the scale through a ReLU.

    Source: He et al. 2015, arXiv:1502.01852, eq. 10.
    """
    bound = (6 / n_in) ** 0.5
    return torch.empty(n_out, n_in).uniform_(-bound, bound, generator=generator)


def output_weight(width: int, generator: torch.Generator) -> Tensor:
    """Return initial weights (width,), of variance 1 / width, of a linear layer to one value.

    Source: LeCun et al. 1998, sec. 4.6.
    """
    return torch.empty(width).normal_(0.0, width**-0.5, generator=generator)


def add_biases(logits: Tensor, user_side: Side, item_side: Side) -> Tensor:
    """Return the logits (B, n) plus the biases of both sides, if there are any."""
    if user_side.bias is None or item_side.bias is None:
        return logits
    return logits + user_side.bias.unsqueeze(1) + item_side.bias
