"""Contracts of training: `fit` drives a trainer, gradient descent drives rows, rows yield batches.

A trial reports after each of the `n_segments` segments of an epoch. A segment has whole batches.
"""

from collections.abc import Callable, Iterator
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from recsys.config.sections import TrainingConfig
from recsys.models import Model, SideName

Relabel = Callable[..., tuple[Tensor, ...]]
"""Function of any number of tensors of user ids or item ids, which returns tensors of other ids."""


class Batch(Protocol):
    """Rows of one step of gradient descent."""

    @property
    def n_rows(self) -> int:
        """Number of rows; the loss is their mean."""

    def relabel(self, user: Relabel, item: Relabel) -> Self:
        """Return the batch with other ids for the users and the items."""

    def loss(self, model: Model, training: TrainingConfig) -> Tensor:
        """Return the mean over the rows of their loss and penalty, a scalar."""


class Rows(Protocol):
    """Rows of all epochs, on the training's device. `order` is what `shuffle` returned."""

    @property
    def n_segments(self) -> int:
        """Segments of an epoch."""

    @property
    def n_lookups(self) -> dict[SideName, int]:
        """About how many users and items a batch looks up, repeated ones included.

        A side whose rows are all read is missing.
        """

    def shuffle(self, generator: torch.Generator) -> Any:
        """Return a random order for an epoch."""

    def batches(self, order: Any, segment: int, generator: torch.Generator) -> Iterator[Batch]:
        """Yield the batches of one segment, counted from 0.

        All segments together have every row once.
        """

    def n_rows_of(self, order: Any, n_segments: int) -> int:
        """Return the number of rows in the first `n_segments` segments."""

    def n_samples_of(self, order: Any, n_segments: int) -> int:
        """Return the number of pairs of user and item in the first `n_segments` segments."""


class Trainer(Protocol):
    """Algorithm that trains a state in place, segment by segment."""

    n_segments: int
    """Segments of an epoch."""

    def train(self, epoch: int, segment: int) -> float:
        """Train a segment of an epoch, both counted from 1; return the sum of its rows' losses."""

    def n_rows(self, n_segments: int) -> int:
        """Return the number of rows in the first `n_segments` segments of the last epoch."""

    def n_samples(self, n_segments: int) -> int:
        """Return the number of user-item pairs in the first `n_segments` of the last epoch."""
