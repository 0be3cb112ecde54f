"""Users of one step of gradient descent, each with all its positives and a score for many items.

`full_softmax` yields them.
"""

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from recsys.config.sections import TrainingConfig
from recsys.kernels.lookup import square_norms
from recsys.models import Model, Side
from recsys.models.histories import HistoryModel, TrainSide, history_of
from recsys.training.contract import Relabel
from recsys.training.losses import full_loss_of, logits_of


@dataclass(frozen=True)
class UserBatch:
    """Users of one step with a score for each of W items; ids and indices are int64.

    `user` (R,). `item` (W,): None for the whole catalogue in order. `row`, `column` (P,): the
    indices of the positives in the scores (R, W). `weight` (P,): of their losses, all 1 if None.
    `excluded` (K,): the indices in the flat scores of the pairs that are no negatives. `shift`
    (R,): log(n_negatives / unseen items), which turns a sum over the unseen items into a sum over
    `n_negatives` draws. `n_drawn`: the first items of the W, which stand for the catalogue. `top`:
    the rank among them that stands for the first of `evaluation.k` in the catalogue.
    """

    user: Tensor
    item: Tensor | None
    row: Tensor
    column: Tensor
    weight: Tensor | None
    excluded: Tensor
    shift: Tensor
    n_drawn: int
    top: int

    @property
    def n_rows(self) -> int:
        """Positives."""
        return len(self.row)

    def relabel(self, user: Relabel, item: Relabel) -> Self:
        """Return the batch with other ids for the users and the items."""
        (users,) = user(self.user)
        return replace(self, user=users, item=None if self.item is None else item(self.item)[0])

    def loss(self, model: Model, training: TrainingConfig) -> Tensor:
        """Return the mean over the positives of loss and L2 penalty, plus other penalties."""
        (user, penalty, weigh), item = self._user_side(model), model.item_side(self.item)
        logits = logits_of(model, model.score(user, item), training)  # (R, W)
        loss = full_loss_of(training)
        losses = loss(logits, self.row, self.column, self.excluded, self.shift)
        if training.top_k_weight is not None:
            losses = losses * self._top_k_weights(logits.detach(), training.top_k_weight)
        if weigh is not None:
            losses = losses * weigh(self._means(losses.detach())).index_select(0, self.row)
        if training.l2:
            of_user, of_item = _square_norms(user), _square_norms(item)
            norms = of_user.index_select(0, self.row) + of_item.index_select(0, self.column)
            losses = losses + training.l2 * norms
        mean = (losses if self.weight is None else losses * self.weight).mean()
        mean = mean if item.penalty is None else mean + item.penalty
        return mean if penalty is None else mean + training.kl_weight * penalty.sum() / self.n_rows

    def _user_side(self, model: Model) -> TrainSide:
        if not isinstance(model, HistoryModel):
            return TrainSide(model.user_side(self.user))
        items = self.column if self.item is None else self.item[self.column]
        history = history_of(items, self.row, len(self.user), weight=None)
        return model.train_side(history, self.item)

    def _means(self, losses: Tensor) -> Tensor:
        """Return the mean (R,) of each user's losses (P,)."""
        totals = losses.new_zeros(len(self.user)).index_add_(0, self.row, losses)
        return totals / torch.bincount(self.row, minlength=len(self.user))

    def _top_k_weights(self, logits: Tensor, width: float) -> Tensor:
        """Return the weights (P,) of the positives, given the logits (R, W) of the batch."""
        lowest = logits[:, : self.n_drawn].topk(self.top, sorted=False).values.amin(1)  # (R,)
        margin = logits[self.row, self.column] - lowest[self.row]
        return torch.sigmoid(margin / width)


def _square_norms(side: Side) -> Tensor:
    return torch.stack([square_norms(rows) for rows in side.embeddings]).sum(0)
