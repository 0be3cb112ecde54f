"""Neural matrix factorisation: GMF and a tower, each with its own embeddings."""

import torch
from torch import Tensor, nn

from recsys.config.sections import ModelConfig
from recsys.kernels.lookup import inner_product, rows_of
from recsys.models.contract import Model, Side
from recsys.models.layers import Biases, Embedding, Tower, add_biases, output_weight


class NeuMF(Model):
    """Model with logit = <h, u * i> + <h', tower([u'; i'])> + biases.

    As in GMF, h is multiplied into the user's side and starts at 1, and L2 penalises h * u.
    Source: He et al. 2017, arXiv:1708.05031, eq. 12.
    """

    def __init__(
        self, config: ModelConfig, n_users: int, n_items: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        dim, std = config.embedding_dim, config.init_std
        self.product_users = Embedding("user", n_users, dim, std, generator)
        self.product_items = Embedding("item", n_items, dim, std, generator)
        self.tower_users = Embedding("user", n_users, dim, std, generator)
        self.tower_items = Embedding("item", n_items, dim, std, generator)
        self.tower = Tower(dim, config.n_layers, config.dropout, generator)
        self.product_output = nn.Parameter(torch.ones(dim))
        self.tower_output = nn.Parameter(output_weight(self.tower.width, generator))
        self.biases = Biases(config.bias, n_users, n_items)

    def user_side(self, user: Tensor) -> Side:
        """Return h * u of users (B,), and their share in the tower's first layer."""
        product, tower = self.product_users(user) * self.product_output, self.tower_users(user)
        return Side(
            (product, tower), (product, self.tower.user_share(tower)), self.biases.of_user(user)
        )

    def item_side(self, item: Tensor | None) -> Side:
        """Return lookups of items (B, n) or (n,), of all for None, and their share in the tower."""
        product, tower = self.product_items.lookup(item), self.tower_items(item)
        return Side(
            (product, tower), (product, self.tower.item_share(tower)), self.biases.of_item(item)
        )

    def score(self, user_side: Side, item_side: Side) -> Tensor:
        """Return the logits (B, n) of the sides of (B,) users and (B, n) or (n,) items."""
        product = inner_product(user_side.factors[0], item_side.factors[0])
        hidden = self.tower(
            rows_of(user_side.factors[1]), rows_of(item_side.factors[1])
        )  # (B, n, width)
        return add_biases(product + hidden @ self.tower_output, user_side, item_side)
