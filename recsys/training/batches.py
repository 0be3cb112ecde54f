"""An epoch's rows in random order: each positive with its negatives, and the explicit negatives beside them.

Feeds `fit`. Negatives are drawn for a long stretch of the epoch at a time and in the users' order, in which the sampler's search
runs through memory; each batch then takes its rows of the stretch in random order. An explicit negative is a row of one sample
and travels apart from the others, so that nothing is computed for draws that it does not need.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor

from recsys.config.components import LOSSES
from recsys.config.schema import Config
from recsys.config.sections import TrainingConfig
from recsys.data.interactions import Interactions
from recsys.data.negatives import popularity_weights
from recsys.errors import InputError
from recsys.kernels.tensors import as_tensor
from recsys.models import Model, SideName
from recsys.training.contract import Relabel
from recsys.training.losses import explicit_negative_bce, l2_penalty, row_loss_of
from recsys.training.negatives import TorchNegativeSampler

STRETCH = 1 << 16
"""Positives that negatives are drawn for at a time: their draws stay in the last-level cache until they are trained on."""
SLICE = 1 << 14
"""Positives in one call of the sampler, whose temporaries then stay in a core's own cache: 2^12 and 2^16 are 15% slower."""
PART = 1 << 22
"""Positives after which a long epoch reports: minutes on a core, whatever the model."""


@dataclass(frozen=True)
class Batch:
    """Rows of one step, all ids int64.

    `user` (B,), `item` (B, 1 + n): positives at position 0, then negatives. `low_user`, `low_item` (L,): explicit negatives.
    `log_weights` (B, 1 + n): the logarithm of the items' weights in the draws, where the loss takes it off the logits.
    """

    user: Tensor
    item: Tensor
    low_user: Tensor
    low_item: Tensor
    log_weights: Tensor | None

    @property
    def n_rows(self) -> int:
        """Positives and explicit negatives."""
        return len(self.user) + len(self.low_user)

    def relabel(self, user: Relabel, item: Relabel) -> Self:
        """The same with other ids for the users and the items."""
        (users, low_users), (items, low_items) = (
            user(self.user, self.low_user),
            item(self.item, self.low_item),
        )
        return replace(self, user=users, low_user=low_users, item=items, low_item=low_items)

    def loss(self, model: Model, training: TrainingConfig) -> Tensor:
        """The mean over the rows of their loss and penalty."""
        row_loss = row_loss_of(training)
        if len(self.low_user) == 0:
            user, item = model.user_side(self.user), model.item_side(self.item)
            logits = model.score(user, item)  # (B, 1 + n)
            losses = row_loss(logits if self.log_weights is None else logits - self.log_weights)
            return (
                (losses + training.l2 * l2_penalty(user, item)).mean()
                if training.l2
                else losses.mean()
            )
        # Both kinds of rows are looked up at once, so that each table gets one gradient.
        n_rows, width = self.item.shape
        user, low_user = model.user_side(torch.cat([self.user, self.low_user])).split(n_rows)
        item, low_item = model.item_side(torch.cat([self.item.reshape(-1), self.low_item])).split(
            n_rows * width
        )
        item, low_item = item.unflatten(width), low_item.unflatten(1)
        losses = torch.cat(
            [
                row_loss(model.score(user, item)),
                explicit_negative_bce(model.score(low_user, low_item)),
            ]
        )
        if training.l2:
            losses = losses + training.l2 * torch.cat(
                [l2_penalty(user, item), l2_penalty(low_user, low_item)]
            )
        return losses.mean()


@dataclass(frozen=True)
class TrainingRows:
    """What the epochs are made of, on the training's device, as int32 views of the data where that is the CPU.

    `user`, `item` (P,): positives by user. `low_user`, `low_item` (L,): explicit negatives, none where the loss has no use for
    them. `negatives` (P, n): fixed ones, or None and `sampler` draws. `log_weights` (n_items,): the logarithm of the draws'
    weights where the loss takes it off the logits.
    """

    user: Tensor
    item: Tensor
    low_user: Tensor
    low_item: Tensor
    negatives: Tensor | None
    sampler: TorchNegativeSampler | None
    log_weights: Tensor | None
    n_negatives: int
    batch_size: int

    @property
    def n_batches(self) -> int:
        """Batches of an epoch, at least one a part."""
        return max(self.n_parts, math.ceil(len(self.user) / self.batch_size))

    @property
    def n_parts(self) -> int:
        """Parts that an epoch reports in, each of whole batches."""
        return parts_of_epoch(len(self.user))

    def n_rows_of(self, order: tuple[Tensor, Tensor], n_parts: int) -> int:
        """How many rows the first `n_parts` parts of an epoch hold."""
        return sum(self._ends(order, n_parts))

    def n_samples_of(self, order: tuple[Tensor, Tensor], n_parts: int) -> int:
        """How many positives and negatives the first `n_parts` parts of an epoch hold."""
        n_rows, n_low = self._ends(order, n_parts)
        return n_rows * (1 + self.n_negatives) + n_low

    def _ends(self, order: tuple[Tensor, Tensor], n_parts: int) -> tuple[int, int]:
        """Positives and explicit negatives in the first `n_parts` parts."""
        batch = n_parts * self.n_batches // self.n_parts
        n_rows, n_low = (batch * len(rows) // self.n_batches for rows in order)
        return n_rows, n_low

    @property
    def n_lookups(self) -> dict[SideName, int]:
        """Users and items of a batch at most, repeated ones included."""
        n_rows, n_low = (
            math.ceil(len(user) / self.n_batches) for user in (self.user, self.low_user)
        )
        return {"user": n_rows + n_low, "item": n_rows * (1 + self.n_negatives) + n_low}

    def shuffle(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """A random order of the positives (P,) and of the explicit negatives (L,), for an epoch."""
        n_rows, n_low, device = len(self.user), len(self.low_user), self.user.device
        order = torch.randperm(n_rows, generator=generator, device=device)
        return order, torch.randperm(n_low, generator=generator, device=device)

    def batches(
        self, order: tuple[Tensor, Tensor], part: int, generator: torch.Generator
    ) -> Iterator[Batch]:
        """The batches of one part of an epoch, from 0, of equal size but for one row; all parts hold every row once."""
        n_batches, (order_of_rows, order_of_low) = self.n_batches, order
        begin, end = (part * n_batches // self.n_parts for part in (part, part + 1))
        bounds = [batch * len(order_of_rows) // n_batches for batch in range(n_batches + 1)]
        low_bounds = [batch * len(order_of_low) // n_batches for batch in range(n_batches + 1)]
        step = max(1, STRETCH // self.batch_size)
        for first in range(begin, end, step):
            last = min(first + step, end)
            user, item, shuffle = self._stretch(
                order_of_rows[bounds[first] : bounds[last]], generator
            )
            low = order_of_low[low_bounds[first] : low_bounds[last]]
            low_user, low_item = self.low_user[low].long(), self.low_item[low].long()
            for batch in range(first, last):
                rows = shuffle[bounds[batch] - bounds[first] : bounds[batch + 1] - bounds[first]]
                low_rows = slice(
                    low_bounds[batch] - low_bounds[first], low_bounds[batch + 1] - low_bounds[first]
                )
                items = item.index_select(0, rows).long()
                log_weights = None if self.log_weights is None else self.log_weights[items]
                yield Batch(
                    user.index_select(0, rows),
                    items,
                    low_user[low_rows],
                    low_item[low_rows],
                    log_weights,
                )

    def _stretch(
        self, positions: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Users (S,) int64 and items (S, 1 + n) int32 at `positions` (S,) of the positives, put in order; a new order (S,)."""
        positions = positions.sort().values
        user = self.user.index_select(0, positions).long()
        item = torch.empty(
            len(positions), 1 + self.n_negatives, dtype=torch.int32, device=user.device
        )
        item[:, 0] = self.item.index_select(0, positions)
        if self.negatives is not None:
            item[:, 1:] = self.negatives.index_select(0, positions)
        else:
            assert self.sampler is not None
            for first in range(0, len(positions), SLICE):
                rows = slice(first, first + SLICE)
                item[rows, 1:] = self.sampler.sample(user[rows], self.n_negatives, generator)
        return (
            user,
            item,
            torch.randperm(len(positions), generator=generator, device=positions.device),
        )


def parts_of_epoch(n_positives: int) -> int:
    """In how many parts an epoch of `n_positives` reports; it depends on the data alone, so that all trials report alike."""
    return max(1, round(n_positives / PART))


def training_rows(config: Config, data: Interactions, device: str | torch.device) -> TrainingRows:
    """Put the data on `device` as `config.training` asks for it.

    Raises:
        InputError: if there is nothing to train on, or fixed negatives are asked for and the data holds none.
    """
    training, loss = config.training, LOSSES[config.training.loss]
    negatives = sampler = weights = log_weights = None
    if training.resample_negatives:
        if training.negative_sampling == "popularity":
            weights = popularity_weights(data.item, data.n_items, training.popularity_alpha)
            # Up to a term that is the same for all items of a user, and so for a row's softmax.
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
    return TrainingRows(
        user,
        item,
        low_user,
        low_item,
        negatives,
        sampler,
        log_weights,
        training.n_negatives,
        training.batch_size,
    )
