"""Matrix factorisation: the inner product of the user's and the item's embedding."""

import torch
from torch import Tensor

from recsys.config.sections import ModelConfig
from recsys.kernels.lookup import inner_product
from recsys.models.contract import Model, Side
from recsys.models.layers import Biases, Embedding, add_biases


class InnerProduct(Model):
    """Model with logit = <u, i> + biases, or the cosine of u and i in place of the product.

    Source: Koren et al. 2009, Computer 42(8), eq. 4.
    """

    def __init__(
        self, config: ModelConfig, n_users: int, n_items: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.users = Embedding("user", n_users, config.embedding_dim, config.init_std, generator)
        self.items = Embedding("item", n_items, config.embedding_dim, config.init_std, generator)
        self.biases = Biases(config.bias, n_users, n_items)
        self.has_cosine_scores = config.similarity == "cosine"

    def user_side(self, user: Tensor) -> Side:
        """Return the embeddings of users (B,)."""
        embedding = self.users(user)
        return Side((embedding,), (self.factor_of(embedding),), self.biases.of_user(user))

    def item_side(self, item: Tensor | None) -> Side:
        """Return lookups of items (B, n) or (n,), of all for None."""
        embedding = self.items.lookup(item)
        return Side((embedding,), (self.factor_of(embedding),), self.biases.of_item(item))

    def score(self, user_side: Side, item_side: Side) -> Tensor:
        """Return the scores (B, n) of the sides of (B,) users and (B, n) or (n,) items."""
        return add_biases(
            inner_product(user_side.factors[0], item_side.factors[0]), user_side, item_side
        )
