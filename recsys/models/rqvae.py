"""Residual-quantised item embeddings: an item is a few codes, the rest is shared by all items."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from recsys.config.sections import ModelConfig
from recsys.kernels.codebooks import (
    Quantised,
    fit_codebooks,
    follow,
    perplexities,
    quantise,
    restart_unused,
    sum_entries,
    unique_share,
)
from recsys.kernels.lookup import Lookup, inner_product
from recsys.models.contract import Model, RowParameters, Side
from recsys.models.layers import Biases, Embedding, add_biases

ITEMS_PER_CODE = 4
"""Least number of items for each code of a level."""


class RQVAE(Model):
    """Model with logit = <u, v_i> + biases, where v_i is decoded from the codes of the item.

    Training encodes an embedding E_i to z_i, quantises it to q_i, the sum of an entry of each of
    the L codebooks, and decodes v_i from q_i. Encoder and decoder are linear, and the identity at
    first. Gradients pass from q_i to z_i unchanged. The entries are moving averages of the
    residuals that have their codes, one step for each batch, in which an item counts once. Two
    means over the items of a batch are added to its loss: `model.commitment_weight` times the sum
    of the squared residuals that the levels leave, and `model.reconstruction_weight` times
    ||v_i - E0_i||^2, where E0_i is the embedding at the start of training.

    Training begins with embeddings of least squares and codebooks of k-means. After each segment
    the items' codes are stored; at the end of an epoch, entries that no item has restart at
    residuals of random items. Before training begins, the model is not quantised. In evaluation and
    once training has ended, codes, codebooks and decoder give v_i.

    Source: Lee et al. 2022, arXiv:2203.01941, sec. 3.1; Rajput et al. 2023, arXiv:2305.05065,
    sec. 3.1 (codes of items).
    """

    starts_with_least_squares = True
    codes: Tensor
    """Codes of the items (n_items, L) uint8."""
    codebooks: Tensor
    """Entries (L, K, d)."""
    counts: Tensor
    """Moving averages of the numbers of items with each code (L, K)."""
    is_quantised: Tensor
    """Whether training has begun, () bool."""

    def __init__(
        self, config: ModelConfig, n_users: int, n_items: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        dim, n_levels = config.embedding_dim, config.n_levels
        n_codes = max(1, min(config.n_codes, n_items // ITEMS_PER_CODE))
        self.users = Embedding("user", n_users, dim, config.init_std, generator)
        self.items = Embedding("item", n_items, dim, config.init_std, generator)
        self.start = _StartEmbeddings(n_items, dim)
        self.encoder = nn.Parameter(torch.eye(dim))
        self.decoder = nn.Parameter(torch.eye(dim))
        self.biases = Biases(config.bias, n_users, n_items)
        self.register_buffer("codes", torch.zeros(n_items, n_levels, dtype=torch.uint8))
        self.register_buffer("codebooks", torch.zeros(n_levels, n_codes, dim))
        self.register_buffer("counts", torch.zeros(n_levels, n_codes))
        self.register_buffer("is_quantised", torch.tensor(False))
        self.commitment_weight = config.commitment_weight
        self.reconstruction_weight = config.reconstruction_weight
        self.item_products = n_levels * config.n_codes * dim + 2 * dim**2
        self.has_ended = False

    @torch.no_grad()
    def begin_training(self, generator: torch.Generator) -> None:
        """Keep the embeddings, and fit codebooks to them."""
        self.start.weight.copy_(self.items.weight)
        n_levels, n_codes, _ = self.codebooks.shape
        codebooks, counts = fit_codebooks(self._encode(None), n_levels, n_codes, generator)
        self.codebooks.copy_(codebooks)
        self.counts.copy_(counts)
        self.is_quantised.fill_(True)

    @torch.no_grad()
    def end_segment(self, generator: torch.Generator, *, ends_epoch: bool) -> None:
        """Store the codes of all items, at the end of an epoch after unused entries restart."""
        encoded = self._encode(None)
        if ends_epoch:
            restart_unused(self.codebooks, self.counts, encoded, generator)
        self.codes.copy_(quantise(encoded, self.codebooks).codes)

    def end_training(self) -> None:
        """Drop the embeddings of items, the encoder and the moving averages."""
        self.has_ended = True
        del self.items, self.start, self.encoder, self.counts, self.is_quantised

    def metrics(self) -> dict[str, float]:
        """Return the share of the items with codes of their own, and the least perplexity."""
        least = perplexities(self.codes, self.codebooks.shape[1]).min()
        return {"unique_codes": unique_share(self.codes), "least_perplexity": float(least)}

    def user_side(self, user: Tensor) -> Side:
        """Return the embeddings of users (B,)."""
        rows = self.users(user)
        return Side((rows,), (rows,), self.biases.of_user(user))

    def item_side(self, item: Tensor | None) -> Side:
        """Return lookups of v_i of items (B, n) or (n,), of all for None.

        In training it moves the codebooks, and the side has a penalty.
        """
        bias = self.biases.of_item(item)
        if self.has_ended or (self.is_quantised and not self.training):
            decoded = self._decode(
                sum_entries(self.codes if item is None else self.codes[item], self.codebooks)
            )
            return Side((decoded,), (decoded,), bias)
        distinct, index = (None, None) if item is None else torch.unique(item, return_inverse=True)
        encoded, penalty = self._encode(distinct), None
        if self.is_quantised:
            quantised = quantise(encoded, self.codebooks)
            decoded = self._decode(encoded - quantised.residuals[-1].detach())
            penalty = self._penalty(quantised, decoded, distinct)
            follow(self.codebooks, self.counts, quantised)
        else:
            decoded = self._decode(encoded)
        rows = decoded if index is None else Lookup(decoded, index)
        return Side((rows,), (rows,), bias, penalty=penalty)

    def score(self, user_side: Side, item_side: Side) -> Tensor:
        """Return the scores (B, n) of the sides of (B,) users and (B, n) or (n,) items."""
        return add_biases(
            inner_product(user_side.factors[0], item_side.factors[0]), user_side, item_side
        )

    def _encode(self, item: Tensor | None) -> Tensor:
        """Return z_i (n, d) of items (n,), of all for None."""
        return functional.linear(self.items(item), self.encoder)

    def _decode(self, quantised: Tensor) -> Tensor:
        """Return v_i (..., d), given q_i (..., d)."""
        return functional.linear(quantised, self.decoder)

    def _penalty(self, quantised: Quantised, decoded: Tensor, item: Tensor | None) -> Tensor:
        """Return the terms () of the loss for the codes of the items (n,) of a batch."""
        commitment = quantised.residuals[1:].square().sum((0, 2)).mean()
        start = self.start.weight if item is None else self.start.weight.index_select(0, item)
        reconstruction = (decoded - start).square().sum(1).mean()
        return self.commitment_weight * commitment + self.reconstruction_weight * reconstruction


class _StartEmbeddings(RowParameters):
    """Embeddings (n_items, d) of the items at the start of training, which stay as they are."""

    weight: Tensor

    def __init__(self, n_items: int, dim: int) -> None:
        super().__init__()
        self.sides = {"weight": "item"}
        self.register_buffer("weight", torch.zeros(n_items, dim))
