"""Models that compute a user's side from the user's positives, the history.

Training passes in the histories of a batch. After each segment the latents of all users are
stored, so that ranking, ensembles and saved models look users up as in any other model.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from recsys.models.contract import Model, Side
from recsys.models.layers import Embedding


class History(NamedTuple):
    """Positives of B users in one flat list, by user.

    `item` (K,) int64. `start` (B,) int64: the index of each user's first. `weight` (K,): those of a
    user have a sum of squares of 1.
    """

    item: Tensor
    start: Tensor
    weight: Tensor


class TrainSide(NamedTuple):
    """Side of B users in training, and what their losses get besides.

    `penalty` (B,): of their latents. `weigh`: a function of the mean losses of the users (B,) that
    returns the weights of the losses (B,); None for equal weights.
    """

    side: Side
    penalty: Tensor | None = None
    weigh: Callable[[Tensor], Tensor] | None = None


def history_of(item: Tensor, row: Tensor, n_rows: int, weight: Tensor | None) -> History:
    """Return the history of `n_rows` users.

    Args:
        item: their positives, (K,) int64.
        row: the user of each, from 0 to n_rows - 1 in ascending order, (K,) int64.
        n_rows: the number of users.
        weight: weights of the positives, (K,); None for equal ones.
    """
    counts = torch.bincount(row, minlength=n_rows)
    weight = torch.ones(len(item), device=item.device) if weight is None else weight
    squares = weight.new_zeros(n_rows).index_add_(0, row, weight.square())
    return History(item, counts.cumsum(0) - counts, weight * squares.rsqrt().index_select(0, row))


class HistoryModel(Model):
    """Model that knows users by their positives.

    `latents` (n_users, d): of all users, as `training.latents` stored them last. `train_width`,
    `encode_width`: multiplications for each pair of a user and an item, besides the score, in a
    batch and in `encode`.
    """

    latents: Tensor
    train_width = encode_width = 0

    def __init__(self, n_users: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("latents", torch.zeros(n_users, dim))

    @abstractmethod
    def input_rows(self) -> Embedding:
        """Return the rows of items that `encode` reads, 0 for an item that says nothing."""

    @abstractmethod
    def encode(self, history: History) -> Tensor:
        """Return the latents (B, d) of users; 0 positives give the latent of an unknown user."""

    @abstractmethod
    def side_of(self, latent: Tensor) -> Side:
        """Return the side of users with these latents (B, d)."""

    def train_side(self, history: History, item: Tensor | None) -> TrainSide:
        """Return the side of B users in training, whose batch has the items (W,), None for all."""
        return TrainSide(self.side_of(self.encode(history)))

    def user_side(self, user: Tensor) -> Side:
        """Return the side of users (B,), from their stored latents."""
        return self.side_of(self.latents.index_select(0, user))
