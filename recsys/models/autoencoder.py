"""Autoencoder: a user's positives, encoded to a latent and decoded to scores of all items."""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from recsys.config.sections import ModelConfig
from recsys.kernels.lookup import inner_product
from recsys.models.contract import Side
from recsys.models.histories import History, HistoryModel, TrainSide
from recsys.models.layers import Embedding, ItemBiases


class Autoencoder(HistoryModel):
    """Denoising autoencoder with logit = <h_u, i> + b_i, h_u decoded from the latent of a user.

    The first layer adds the input rows of a user's positives, of which training drops some. Without
    hidden layers this sum is the latent, and the latent is h_u. With n of them, n layers of
    `model.hidden_dim` values with tanh are on each side of the latent. The input rows start at 0,
    so that an item that training never saw says nothing about a user.

    With `model.bottleneck: gaussian` the encoder gives a mean and the logarithm of a variance.
    Training draws the latent from this normal distribution, and penalises its divergence from the
    standard one; the mean is the latent elsewhere. Unlike in Mult-VAE, the decoder reads the tanh
    of the latent here too.

    Source: Liang et al. 2018, arXiv:1802.05814, sec. 2 (Mult-DAE, Mult-VAE).
    """

    def __init__(
        self, config: ModelConfig, n_users: int, n_items: int, generator: torch.Generator
    ) -> None:
        super().__init__(n_users, config.embedding_dim)
        hidden, dim = [config.hidden_dim] * config.n_layers, config.embedding_dim
        self.is_gaussian = config.bottleneck == "gaussian"
        encoder = [*hidden, 2 * dim if self.is_gaussian else dim]
        decoder = [dim, *hidden]
        self.inputs = Embedding("item", n_items, encoder[0], 0.0, generator)
        self.outputs = Embedding("item", n_items, decoder[-1], config.init_std, generator)
        # Not 0 as the input rows: the cosine of a zero vector has no direction to learn from.
        first_bias = torch.empty(encoder[0]).normal_(0.0, config.init_std, generator=generator)
        self.first_bias = nn.Parameter(first_bias)
        self.encoder = _Dense(encoder, generator)
        self.decoder = _Dense(decoder, generator)
        self.biases = ItemBiases(config.bias, n_items)
        self.dropout = config.dropout
        self.has_cosine_scores = config.similarity == "cosine"

    def input_rows(self) -> Embedding:
        """Return the rows of the first layer."""
        return self.inputs

    def encode(self, history: History) -> Tensor:
        """Return the latents (B, d) of users."""
        return self.encode_sum(self.sum_inputs(history))[:, : self.latents.shape[1]]

    def train_side(self, history: History, item: Tensor | None) -> TrainSide:
        """Return the side of B users in training, and the divergence (B,) of a gaussian latent."""
        encoded = self.encode_sum(self.sum_inputs(history))
        if not self.is_gaussian:
            return TrainSide(self.side_of(encoded))
        mean, log_variance = encoded.chunk(2, dim=1)
        latent = mean + torch.randn_like(mean) * (log_variance / 2).exp()
        divergence = (mean.square() + log_variance.exp() - log_variance - 1).sum(1) / 2
        return TrainSide(self.side_of(latent), divergence)

    def sum_inputs(self, history: History) -> Tensor:
        """Return the sum (B, width) of the users' input rows, of which training drops some."""
        weight = functional.dropout(history.weight, self.dropout, self.training)
        return functional.embedding_bag(
            history.item,
            self.inputs.weight,
            history.start,
            mode="sum",
            per_sample_weights=weight,
        )

    def encode_sum(self, total: Tensor) -> Tensor:
        """Return the last layer of the encoder, given the first without its bias (B, width).

        It is (B, d), or for a gaussian latent (B, 2 d).
        """
        encoded: Tensor = self.encoder(total + self.first_bias)
        return encoded

    def side_of(self, latent: Tensor) -> Side:
        """Return h_u of users with these latents (B, d)."""
        decoded = self.decoder(latent)
        if self.decoder.weights:
            decoded = decoded.tanh()
        return Side((decoded,), (self.factor_of(decoded),), None)

    def item_side(self, item: Tensor | None) -> Side:
        """Return lookups of items (B, n) or (n,), of all for None."""
        rows = self.outputs.lookup(item)
        return Side((rows,), (self.factor_of(rows),), self.biases.of_item(item))

    def score(self, user_side: Side, item_side: Side) -> Tensor:
        """Return the scores (B, n) of the sides of (B,) users and (B, n) or (n,) items."""
        product = inner_product(user_side.factors[0], item_side.factors[0])
        return product if item_side.bias is None else product + item_side.bias


class _Dense(nn.Module):
    """Dense layers of these widths, each applied to the tanh of the layer before it."""

    def __init__(self, widths: Sequence[int], generator: torch.Generator) -> None:
        super().__init__()
        pairs = list(itertools.pairwise(widths))
        self.weights = nn.ParameterList(_weight(n_in, n_out, generator) for n_in, n_out in pairs)
        self.biases = nn.ParameterList(torch.zeros(n_out) for _, n_out in pairs)

    def forward(self, values: Tensor) -> Tensor:
        """Return the last layer (B, n_out), without a tanh of its own, of the first (B, n_in)."""
        for weight, bias in zip(self.weights, self.biases, strict=True):
            values = functional.linear(values.tanh(), weight, bias)
        return values


def _weight(n_in: int, n_out: int, generator: torch.Generator) -> Tensor:
    """Return uniform weights (n_out, n_in) that keep the scale through a tanh.

    Source: Glorot and Bengio 2010, AISTATS, eq. 16.
    """
    bound = (6 / (n_in + n_out)) ** 0.5
    return torch.empty(n_out, n_in).uniform_(-bound, bound, generator=generator)
