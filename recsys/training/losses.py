"""From a row's logits to its loss.

A row is a positive with its negatives: logits (B, 1 + n), the positive at position 0. An explicit negative, a low rating, is a
row of one logit. A batch's loss is the mean over its rows. Where all free items are negatives, a positive is a place in its
user's logits for all items.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from recsys.config.components import LOSSES, code_of
from recsys.config.sections import TrainingConfig
from recsys.kernels.lookup import square_norms
from recsys.models import Side


def bce(logits: Tensor, positive_weight: float = 1.0) -> Tensor:
    """Binary cross-entropy summed over a row's samples, the positive's weighted: (B, 1 + n) -> (B,).

    Source: He et al. 2017, arXiv:1708.05031, eq. 7.
    """
    target = torch.zeros_like(logits)
    target[:, 0] = 1
    losses = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    if positive_weight != 1.0:
        losses = losses * (1 + target * (positive_weight - 1))
    return losses.sum(1)


def bpr(logits: Tensor) -> Tensor:
    """Bayesian personalised ranking, -log sigmoid(positive - negative) summed over the negatives: (B, 1 + n) -> (B,).

    Source: Rendle et al. 2009, arXiv:1205.2618, sec. 4.1 (BPR-OPT; the regularisation is `l2_penalty`).
    """
    return -functional.logsigmoid(logits[:, :1] - logits[:, 1:]).sum(1)


def softmax(logits: Tensor) -> Tensor:
    """Cross-entropy of the positive among its row: (B, 1 + n) -> (B,).

    Where negatives are not drawn uniformly, the logarithm of the sampling probability is taken off all logits beforehand.
    Source: Bengio and Senecal 2008, IEEE Trans. Neural Networks 19(4), sec. III.
    """
    return torch.logsumexp(logits, dim=1) - logits[:, 0]


def row_loss_of(config: TrainingConfig) -> Callable[[Tensor], Tensor]:
    """Return the loss of a row that `training.loss` and `training.balance` ask for."""
    entry = LOSSES[config.loss]
    assert entry.code is not None
    loss: Callable[..., Tensor] = code_of(entry.code)
    if entry.can_balance and config.balance:
        return partial(loss, positive_weight=config.n_negatives)
    return loss


def explicit_negative_bce(logits: Tensor) -> Tensor:
    """Binary cross-entropy of low ratings, each a row of one logit with label 0: (L, 1) -> (L,)."""
    return functional.softplus(logits).squeeze(1)


def l2_penalty(user_side: Side, item_side: Side) -> Tensor:
    """||u||^2 + mean over the row's items ||i||^2, over all embedding tables: sides of (B,) users, (B, n) items -> (B,)."""
    users = torch.stack([square_norms(rows) for rows in user_side.embeddings])
    items = torch.stack([square_norms(rows).mean(1) for rows in item_side.embeddings])
    return (users + items).sum(0)


def softmax_of_all(
    logits: Tensor, row: Tensor, column: Tensor, known: Tensor, shift: Tensor
) -> Tensor:
    """Cross-entropy of each positive against all free items of its user, weighed as if some were drawn: (R, W) -> (P,).

    softplus(log sum over free items exp(logit) + shift - logit of the positive): the sampled softmax with the mean of its draws
    in place of the draws. Source: Bengio and Senecal 2008, IEEE Trans. Neural Networks 19(4), sec. III.

    Args:
        logits: of users for items (R, W).
        row: the user of each positive (P,).
        column: the item of each positive (P,).
        known: the places (K,) in the flat logits of what is no negative.
        shift: log(draws / free items) of each user (R,).
    """
    losses: Tensor = _SoftmaxOfAll.apply(logits, row, column, known, shift)  # type: ignore[no-untyped-call]
    return losses


class _SoftmaxOfAll(torch.autograd.Function):
    """The loss and its gradient with one temporary of the logits' size; autograd's own way takes five."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, *places: Tensor) -> Tensor:
        row, column, known, shift = places
        place = row * logits.shape[1] + column
        positive = logits.reshape(-1).index_select(0, place)
        highest = logits.amax(1, keepdim=True)
        weights = torch.sub(logits, highest).exp_()
        weights.view(-1).index_fill_(0, known, 0.0)
        # A known item may lie so far above the free ones that nothing of them is left.
        total = weights.sum(1).clamp_(min=torch.finfo(logits.dtype).tiny)
        margin = (total.log() + highest.squeeze(1) + shift).index_select(0, row).sub_(positive)
        ctx.save_for_backward(weights, total, torch.sigmoid(margin), place, row)
        return functional.softplus(margin)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        weights, total, share, place, row = ctx.saved_tensors
        share = share * gradient
        of_user = torch.zeros_like(total).index_add_(0, row, share).div_(total)
        of_logits = weights.mul_(of_user.unsqueeze(1))
        of_logits.view(-1).index_add_(0, place, share.neg_())
        return of_logits, None, None, None, None
