"""Loss of the softmax over all unseen items, beside the plain version that its test uses.

Called by `training.full_softmax` with the scores of a batch of users.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


def full_softmax_loss(
    logits: Tensor, row: Tensor, column: Tensor, excluded: Tensor, shift: Tensor
) -> Tensor:
    """Return the cross-entropy (P,) of each positive against all unseen items of its user.

    The loss is softplus(log(sum over unseen items of exp(logit)) + shift - logit of the positive):
    the loss of a sampled softmax, in which the mean over all unseen items replaces the mean over
    the draws.

    Source: Bengio and Senecal 2008, IEEE Trans. Neural Networks 19(4), sec. III.

    Args:
        logits: Logits (R, W) of R users for W items.
        row: Users of the positives (P,) int64, as rows of `logits`.
        column: Items of the positives (P,) int64, as columns of `logits`.
        excluded: Indices (K,) int64 into the flat logits of the pairs that are no negatives.
        shift: log(number of draws / number of unseen items) of each user (R,).
    """
    apply: Callable[..., Tensor] = _FullSoftmaxLoss.apply
    return apply(logits, row, column, excluded, shift)


def plain_full_softmax_loss(
    logits: Tensor, row: Tensor, column: Tensor, excluded: Tensor, shift: Tensor
) -> Tensor:
    """Return what `full_softmax_loss` returns, by the formula and with autograd."""
    is_excluded = torch.zeros(logits.numel(), dtype=torch.bool).index_fill(0, excluded, value=True)
    unseen = logits.masked_fill(is_excluded.view(logits.shape), -math.inf).logsumexp(1) + shift
    return torch.log1p(torch.exp(unseen[row] - logits[row, column]))


class _FullSoftmaxLoss(torch.autograd.Function):
    """Loss and gradient with one temporary of the size of the logits; autograd needs five."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, *arguments: Tensor) -> Tensor:
        row, column, excluded, shift = arguments
        index = row * logits.shape[1] + column  # (P,), into the flat logits
        positive = logits.reshape(-1).index_select(0, index)
        highest = logits.amax(1, keepdim=True)
        weights = torch.sub(logits, highest).exp_()  # (R, W)
        weights.view(-1).index_fill_(0, excluded, 0.0)
        # The logit of a seen item may be so much higher than the others that all weights are 0.
        total = weights.sum(1).clamp_(min=torch.finfo(logits.dtype).tiny)
        margin = (total.log() + highest.squeeze(1) + shift).index_select(0, row).sub_(positive)
        ctx.save_for_backward(weights, total, torch.sigmoid(margin), index, row)
        return functional.softplus(margin)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        weights, total, share, index, row = ctx.saved_tensors
        share = share * gradient
        of_user = torch.zeros_like(total).index_add_(0, row, share).div_(total)
        of_logits = weights.mul_(of_user.unsqueeze(1))
        of_logits.view(-1).index_add_(0, index, share.neg_())
        return of_logits, None, None, None, None
