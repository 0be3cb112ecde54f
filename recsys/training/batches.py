"""Rows of an epoch in random order: each positive with its negatives, and the explicit negatives.

Called by `gradient_descent`. Negatives are drawn for a long stretch of the epoch at a time, in the
order of the users, so that the sampler's search runs through memory. Each batch then takes its rows
of the stretch in random order.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recsys.config.components import LOSSES
from recsys.config.schema import Config
from recsys.data.interactions import Interactions
from recsys.data.negatives import popularity_weights
from recsys.errors import InputError
from recsys.kernels.tensors import as_tensor
from recsys.models import SideName
from recsys.training.negatives import TorchNegativeSampler
from recsys.training.recency import recency_weights
from recsys.training.row_batch import RowBatch

STRETCH = 1 << 16
"""Positives for which negatives are drawn at a time: few enough for the draws to stay in the
last-level cache until they are used."""
SLICE = 1 << 14
"""Positives in one call of the sampler, whose temporaries then stay in a core's own cache: 2^12 and
2^16 are 15% slower."""

Order = tuple[Tensor, Tensor]
"""Random order of the positives (P,) and of the explicit negatives (L,)."""


@dataclass(frozen=True)
class TrainingRows:
    """Rows of all epochs, on the training's device. On the CPU they are int32 views of the data.

    `user`, `item` (P,): positives by user. `weight` (P,): of their losses, all 1 if None.
    `low_user`, `low_item` (L,): explicit negatives, none if the loss does not take them.
    `negatives` (P, n): fixed ones; None if `sampler` draws them. `log_weights` (n_items,): the
    logarithm of the weights of the draws, if the loss subtracts it from the logits.
    """

    user: Tensor
    item: Tensor
    weight: Tensor | None
    low_user: Tensor
    low_item: Tensor
    negatives: Tensor | None
    sampler: TorchNegativeSampler | None
    log_weights: Tensor | None
    n_negatives: int
    batch_size: int
    n_segments: int

    @property
    def n_batches(self) -> int:
        """Batches of an epoch, at least one per segment."""
        return max(self.n_segments, math.ceil(len(self.user) / self.batch_size))

    def n_rows_of(self, order: Order, n_segments: int) -> int:
        """Return the number of rows in the first `n_segments` segments of an epoch."""
        return sum(self._ends(order, n_segments))

    def n_samples_of(self, order: Order, n_segments: int) -> int:
        """Return the number of positives and negatives in the first `n_segments` segments."""
        n_rows, n_low = self._ends(order, n_segments)
        return n_rows * (1 + self.n_negatives) + n_low

    def _ends(self, order: Order, n_segments: int) -> tuple[int, int]:
        """Return the number of positives and of explicit negatives in the first segments."""
        batch = n_segments * self.n_batches // self.n_segments
        n_rows, n_low = (batch * len(rows) // self.n_batches for rows in order)
        return n_rows, n_low

    @property
    def n_lookups(self) -> dict[SideName, int]:
        """Largest numbers of users and of items that a batch looks up, repeated ones included."""
        n_rows, n_low = (
            math.ceil(len(user) / self.n_batches) for user in (self.user, self.low_user)
        )
        return {"user": n_rows + n_low, "item": n_rows * (1 + self.n_negatives) + n_low}

    def shuffle(self, generator: torch.Generator) -> Order:
        """Return a random order for an epoch."""
        n_rows, n_low, device = len(self.user), len(self.low_user), self.user.device
        order = torch.randperm(n_rows, generator=generator, device=device)
        return order, torch.randperm(n_low, generator=generator, device=device)

    def batches(self, order: Order, segment: int, generator: torch.Generator) -> Iterator[RowBatch]:
        """Yield the batches of one segment of an epoch, counted from 0.

        Their sizes differ by one row at most. All segments together have every row once.
        """
        begin, end = (
            number * self.n_batches // self.n_segments for number in (segment, segment + 1)
        )
        step = max(1, STRETCH // self.batch_size)
        for first in range(begin, end, step):
            yield from self._stretch(order, first, min(first + step, end), generator)

    def _stretch(
        self, order: Order, first: int, last: int, generator: torch.Generator
    ) -> Iterator[RowBatch]:
        """Yield the batches from `first` to `last`, not included."""
        bounds, low_bounds = (
            [batch * len(rows) // self.n_batches for batch in range(first, last + 1)]
            for rows in order
        )
        positions = order[0][bounds[0] : bounds[-1]].sort().values
        user, item, shuffle = self._draw(positions, generator)
        weight = None if self.weight is None else self.weight.index_select(0, positions)
        low = order[1][low_bounds[0] : low_bounds[-1]]
        low_user, low_item = self.low_user[low].long(), self.low_item[low].long()
        for batch in range(last - first):
            rows, low_rows = (
                slice(ends[batch] - ends[0], ends[batch + 1] - ends[0])
                for ends in (bounds, low_bounds)
            )
            items = item.index_select(0, shuffle[rows]).long()
            yield RowBatch(
                user.index_select(0, shuffle[rows]),
                items,
                low_user[low_rows],
                low_item[low_rows],
                None if self.log_weights is None else self.log_weights[items],
                None if weight is None else weight.index_select(0, shuffle[rows]),
            )

    def _draw(self, positions: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Draw negatives for the positives at `positions` (S,), which are sorted.

        Returns:
            Users (S,) int64, items (S, 1 + n) int32 and a new random order (S,).
        """
        n, device = len(positions), positions.device
        user = self.user.index_select(0, positions).long()
        item = torch.empty(n, 1 + self.n_negatives, dtype=torch.int32, device=device)
        item[:, 0] = self.item.index_select(0, positions)
        if self.negatives is not None:
            item[:, 1:] = self.negatives.index_select(0, positions)
        else:
            assert self.sampler is not None
            for first in range(0, n, SLICE):
                rows = slice(first, first + SLICE)
                item[rows, 1:] = self.sampler.sample(user[rows], self.n_negatives, generator)
        return user, item, torch.randperm(n, generator=generator, device=device)


def training_rows(
    config: Config, data: Interactions, device: str | torch.device, n_segments: int
) -> TrainingRows:
    """Return the rows on `device`, with the kinds of negatives that the config asks for.

    `n_segments`: segments of an epoch, each of whole batches.

    Raises:
        InputError: if the config asks for fixed negatives and the data has none.
    """
    training, loss = config.training, LOSSES[config.training.loss]
    negatives = sampler = weights = log_weights = None
    if training.resample_negatives:
        if training.negative_sampling == "popularity":
            weights = popularity_weights(data.item, data.n_items, training.popularity_alpha)
            # The logarithm of the probability, up to a term equal for all items of a row.
            if loss.corrects_sampling:
                log_weights = torch.from_numpy(np.log(weights / weights.sum())).float().to(device)
        sampler = TorchNegativeSampler(data.seen, weights, device)
    elif data.negatives is None:
        raise InputError(
            "training.resample_negatives",
            "must be true",
            "false for data without fixed negatives",
            "Set it to true.",
        )
    else:
        negatives = as_tensor(data.negatives, device)[:, : training.n_negatives]
    with_low = loss.takes_low_ratings and config.data.low_ratings == "negative"
    low = slice(None) if with_low else slice(0)
    arrays = (data.user, data.item, data.low_user[low], data.low_item[low])
    user, item, low_user, low_item = (as_tensor(array, device) for array in arrays)
    recency = recency_weights(training, data)
    return TrainingRows(
        user=user,
        item=item,
        weight=None if recency is None else as_tensor(recency, device),
        low_user=low_user,
        low_item=low_item,
        negatives=negatives,
        sampler=sampler,
        log_weights=log_weights,
        n_negatives=training.n_negatives,
        batch_size=training.batch_size,
        n_segments=n_segments,
    )
