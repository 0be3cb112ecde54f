"""Multi-layer perceptron: a tower of hidden layers on the concatenated embeddings."""

import torch
from torch import Tensor, nn

from recsys.config.sections import ModelConfig
from recsys.kernels.lookup import rows_of
from recsys.models.contract import Model, Side
from recsys.models.layers import Biases, Embedding, Tower, add_biases, output_weight


class MLP(Model):
    """Model with logit = <h, tower([u; i])> + biases.

    Source: He et al. 2017, arXiv:1708.05031, eq. 10.
    """

    def __init__(
        self, config: ModelConfig, n_users: int, n_items: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.users = Embedding("user", n_users, config.embedding_dim, config.init_std, generator)
        self.items = Embedding("item", n_items, config.embedding_dim, config.init_std, generator)
        self.tower = Tower(config.embedding_dim, config.n_layers, config.dropout, generator)
        self.output = nn.Parameter(output_weight(self.tower.width, generator))
        self.biases = Biases(config.bias, n_users, n_items)

    def user_side(self, user: Tensor) -> Side:
        """Return the share of users (B,) in the tower's first layer."""
        embedding = self.users(user)
        return Side((embedding,), (self.tower.user_share(embedding),), self.biases.of_user(user))

    def item_side(self, item: Tensor | None) -> Side:
        """Return the share of items (B, n) or (n,), of all for None, in the tower's first layer."""
        embedding = self.items(item)
        return Side((embedding,), (self.tower.item_share(embedding),), self.biases.of_item(item))

    def score(self, user_side: Side, item_side: Side) -> Tensor:
        """Return the logits (B, n) of the sides of (B,) users and (B, n) or (n,) items."""
        hidden = self.tower(
            rows_of(user_side.factors[0]), rows_of(item_side.factors[0])
        )  # (B, n, width)
        return add_biases(hidden @ self.output, user_side, item_side)
