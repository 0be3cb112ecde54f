"""Generalised matrix factorisation: a linear layer on the elementwise product of the two embeddings."""

import torch
from torch import Tensor, nn

from recsys.config.sections import ModelConfig
from recsys.kernels.lookup import inner_product
from recsys.models.contract import Model, Side
from recsys.models.layers import Biases, Embedding, add_biases


class GMF(Model):
    """logit = <w, u * i> + biases, computed as <w * u, i>: the weights cost a multiplication a user and not a pair.

    The weights start at 1, so that the model starts as the inner product; with random signs and embeddings near 0 half of its
    dimensions would first have to unlearn. L2 goes by w * u, since weights beside a penalised u would undo the penalty.
    Source: He et al. 2017, arXiv:1708.05031, eq. 9.
    """

    def __init__(
        self, config: ModelConfig, n_users: int, n_items: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.users = Embedding("user", n_users, config.embedding_dim, config.init_std, generator)
        self.items = Embedding("item", n_items, config.embedding_dim, config.init_std, generator)
        self.weight = nn.Parameter(torch.ones(config.embedding_dim))
        self.intercepts = Biases(config.bias, n_users, n_items)

    def user_side(self, user: Tensor) -> Side:
        """Users (B,) -> w * u."""
        factor = self.users(user) * self.weight
        return Side((factor,), (factor,), self.intercepts.of_user(user))

    def item_side(self, item: Tensor | None) -> Side:
        """Items (B, n) or (n,), None for all -> their embeddings, looked up."""
        embedding = self.items.lookup(item)
        return Side((embedding,), (embedding,), self.intercepts.of_item(item))

    def score(self, user_side: Side, item_side: Side) -> Tensor:
        """Sides of (B,) users and (B, n) or (n,) items -> logits (B, n)."""
        return add_biases(
            inner_product(user_side.factors[0], item_side.factors[0]), user_side, item_side
        )
