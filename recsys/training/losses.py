"""Losses of the logits of a row. `LOSSES` in `recsys.config.components` declares what each needs.

A row is a positive with its negatives: logits (B, 1 + n), the positive at position 0. An explicit
negative, a low rating, is a row of one logit. The loss of a batch is the mean over its rows.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from recsys.config.components import LOSSES, code_of
from recsys.config.sections import TrainingConfig
from recsys.kernels.lookup import square_norms
from recsys.models import Model, Side


def bce(logits: Tensor, positive_weight: float = 1.0) -> Tensor:
    """Return the binary cross-entropy (B,) of logits (B, 1 + n), summed over a row's samples.

    Source: He et al. 2017, arXiv:1708.05031, eq. 7.
    """
    target = torch.zeros_like(logits)
    target[:, 0] = 1
    losses = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    if positive_weight != 1.0:
        losses = losses * (1 + target * (positive_weight - 1))
    return losses.sum(1)


def bpr(logits: Tensor) -> Tensor:
    """Return the loss (B,) of Bayesian personalised ranking of logits (B, 1 + n).

    It is -log sigmoid(positive - negative), summed over the negatives.
    Source: Rendle et al. 2009, arXiv:1205.2618, sec. 4.1 (BPR-OPT; the regularisation is
    `l2_penalty`).
    """
    return -functional.logsigmoid(logits[:, :1] - logits[:, 1:]).sum(1)


def softmax(logits: Tensor) -> Tensor:
    """Return the cross-entropy (B,) of the positive among the samples of its row (B, 1 + n).

    If negatives are not drawn uniformly, the logarithm of the sampling probability has been
    subtracted from all logits.
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


def full_loss_of(config: TrainingConfig) -> Callable[..., Tensor]:
    """Return the function of users' logits for all items that `training.loss` declares."""
    entry = LOSSES[config.loss]
    assert entry.full_code is not None
    loss: Callable[..., Tensor] = code_of(entry.full_code)
    return loss


def logits_of(model: Model, scores: Tensor, config: TrainingConfig) -> Tensor:
    """Return the logits of a model's scores: cosines are divided by `training.temperature`."""
    return scores / config.temperature if model.has_cosine_scores else scores


def explicit_negative_bce(logits: Tensor) -> Tensor:
    """Return the binary cross-entropy (L,) of low ratings: rows of one logit (L, 1) and label 0."""
    return functional.softplus(logits).squeeze(1)


def l2_penalty(user_side: Side, item_side: Side) -> Tensor:
    """Return ||u||^2 + mean over the row's items of ||i||^2, summed over all embeddings.

    The sides are of (B,) users and (B, n) items, the penalty is (B,).
    """
    users = torch.stack([square_norms(rows) for rows in user_side.embeddings])
    items = torch.stack([square_norms(rows).mean(1) for rows in item_side.embeddings])
    return (users + items).sum(0)
