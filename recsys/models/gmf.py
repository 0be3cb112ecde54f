"""Generalised matrix factorisation: a linear layer on the product of the two embeddings."""

import torch
from torch import Tensor, nn

from recsys.config.sections import ModelConfig
from recsys.kernels.lookup import inner_product
from recsys.models.contract import Model, Side
from recsys.models.layers import Biases, Embedding, add_biases


class GMF(Model):
    """Model with logit = <w, u * i> + biases, or the cosine of w * u and i in place of the product.

    It is computed as <w * u, i>, which multiplies by the weights once per user and not once per
    pair. The weights start at 1, so that the model starts as the inner product; with random signs
    and embeddings near 0, half of the dimensions would first have to change sign. L2 penalises
    w * u: if it penalised u, the weights could grow in its place.
    Source: He et al. 2017, arXiv:1708.05031, eq. 9.
    """

    def __init__(
        self, config: ModelConfig, n_users: int, n_items: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.users = Embedding("user", n_users, config.embedding_dim, config.init_std, generator)
        self.items = Embedding("item", n_items, config.embedding_dim, config.init_std, generator)
        self.weight = nn.Parameter(torch.ones(config.embedding_dim))
        self.biases = Biases(config.bias, n_users, n_items)
        self.has_cosine_scores = config.similarity == "cosine"

    def user_side(self, user: Tensor) -> Side:
        """Return w * u of users (B,)."""
        product = self.users(user) * self.weight
        return Side((product,), (self.factor_of(product),), self.biases.of_user(user))

    def item_side(self, item: Tensor | None) -> Side:
        """Return lookups of items (B, n) or (n,), of all for None."""
        embedding = self.items.lookup(item)
        return Side((embedding,), (self.factor_of(embedding),), self.biases.of_item(item))

    def score(self, user_side: Side, item_side: Side) -> Tensor:
        """Return the scores (B, n) of the sides of (B,) users and (B, n) or (n,) items."""
        return add_biases(
            inner_product(user_side.factors[0], item_side.factors[0]), user_side, item_side
        )
