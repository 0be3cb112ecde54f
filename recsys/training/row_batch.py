"""Rows of one step of gradient descent: positives with their negatives, and explicit negatives.

`batches` yields them. An explicit negative is a row of one sample and is kept apart from the other
rows, so that nothing is computed for negatives that it does not have.
"""

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from recsys.config.sections import TrainingConfig
from recsys.models import Model
from recsys.training.contract import Relabel
from recsys.training.losses import explicit_negative_bce, l2_penalty, logits_of, row_loss_of


@dataclass(frozen=True)
class RowBatch:
    """Rows of one step, all ids int64.

    `user` (B,), `item` (B, 1 + n): positives at position 0, then negatives. `low_user`, `low_item`
    (L,): explicit negatives. `log_weights` (B, 1 + n): the logarithm of the items' weights in the
    draws, if the loss subtracts it from the logits. `weight` (B,): of the positives' losses, all 1
    if None; explicit negatives have the weight 1.
    """

    user: Tensor
    item: Tensor
    low_user: Tensor
    low_item: Tensor
    log_weights: Tensor | None
    weight: Tensor | None = None

    @property
    def n_rows(self) -> int:
        """Positives and explicit negatives."""
        return len(self.user) + len(self.low_user)

    def relabel(self, user: Relabel, item: Relabel) -> Self:
        """Return the batch with other ids for the users and the items."""
        users, low_users = user(self.user, self.low_user)
        items, low_items = item(self.item, self.low_item)
        return replace(self, user=users, low_user=low_users, item=items, low_item=low_items)

    def loss(self, model: Model, training: TrainingConfig) -> Tensor:
        """Return the mean over the rows of their loss and penalty."""
        if len(self.low_user):
            return self._loss_with_low_ratings(model, training)
        user, item = model.user_side(self.user), model.item_side(self.item)
        losses = self._row_losses(logits_of(model, model.score(user, item), training), training)
        if training.l2:
            losses = losses + training.l2 * l2_penalty(user, item)
        mean = (losses if self.weight is None else losses * self.weight).mean()
        return mean if item.penalty is None else mean + item.penalty

    def _loss_with_low_ratings(self, model: Model, training: TrainingConfig) -> Tensor:
        # Both kinds of rows are looked up at once, so that each embedding gets one gradient.
        n_rows, width = self.item.shape
        users = torch.cat([self.user, self.low_user])
        items = torch.cat([self.item.reshape(-1), self.low_item])
        user, low_user = model.user_side(users).split(n_rows)
        every_item = model.item_side(items)
        item, low_item = every_item.split(n_rows * width)
        item, low_item = item.unflatten(width), low_item.unflatten(1)
        losses = torch.cat(
            [
                self._row_losses(model.score(user, item), training),
                explicit_negative_bce(model.score(low_user, low_item)),
            ]
        )
        if training.l2:
            penalties = [l2_penalty(user, item), l2_penalty(low_user, low_item)]
            losses = losses + training.l2 * torch.cat(penalties)
        if self.weight is not None:
            losses = losses * torch.cat([self.weight, self.weight.new_ones(len(self.low_user))])
        return losses.mean() if every_item.penalty is None else losses.mean() + every_item.penalty

    def _row_losses(self, logits: Tensor, training: TrainingConfig) -> Tensor:
        """Return the losses (B,) of the positives' rows, given their logits (B, 1 + n)."""
        if self.log_weights is not None:
            logits = logits - self.log_weights
        return row_loss_of(training)(logits)
