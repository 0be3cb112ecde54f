"""Contracts of training: `fit` drives a trainer, gradient descent drives rows, and rows give batches.

Segments of an epoch are what it reports in; there are `n_parts` of them, and each holds whole batches.
"""

from collections.abc import Callable, Iterator
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from recsys.config.sections import TrainingConfig
from recsys.models import Model, SideName

Relabel = Callable[..., tuple[Tensor, ...]]
"""Ids (...,) of users or of items, any number of tensors -> as many of other ids."""


class Batch(Protocol):
    """Rows of one step of gradient descent."""

    @property
    def n_rows(self) -> int:
        """Rows that the loss is the mean of."""

    def relabel(self, user: Relabel, item: Relabel) -> Self:
        """Return the batch with other ids for the users and the items."""

    def loss(self, model: Model, training: TrainingConfig) -> Tensor:
        """Return the mean over the rows of their loss and penalty, a scalar."""


class Rows(Protocol):
    """The rows of all epochs, on the training's device. `order` is whatever `shuffle` gave for the epoch."""

    @property
    def n_parts(self) -> int:
        """Segments of an epoch."""

    @property
    def n_lookups(self) -> dict[SideName, int]:
        """Users and items that a batch looks up at most, repeated ones included; none for a side that is read whole."""

    def shuffle(self, generator: torch.Generator) -> Any:
        """Return a random order for an epoch."""

    def batches(self, order: Any, part: int, generator: torch.Generator) -> Iterator[Batch]:
        """Yield the batches of one segment, counted from 0; all segments together hold every row once."""

    def n_rows_of(self, order: Any, n_parts: int) -> int:
        """Return how many rows the first `n_parts` segments hold."""

    def n_samples_of(self, order: Any, n_parts: int) -> int:
        """Return how many pairs of user and item the first `n_parts` segments train on."""


class Trainer(Protocol):
    """An algorithm that trains a state in place, segment by segment."""

    n_parts: int
    """Segments of an epoch."""

    def train(self, epoch: int, part: int) -> float:
        """Train a segment of an epoch, both counted from 1; return the sum of its rows' losses."""

    def n_rows(self, n_parts: int) -> int:
        """Return how many rows the first `n_parts` segments of the last epoch held."""

    def n_samples(self, n_parts: int) -> int:
        """Return how many pairs of user and item the first `n_parts` segments of the last epoch held."""
