"""Mean and deviation of each user's scores, by which an ensemble joins unlike models.

Final training computes them once per member; they are saved with the ensemble.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from recsys.evaluation.scorers import ModelScorer, check_finite
from recsys.models import Model
from recsys.models.ensemble import Ensemble

MAX_ITEMS = 4096
"""Items whose scores are read. A larger catalogue is represented by as many, drawn once."""
_USERS = 16
"""Users of a block, so that a tower's layers of 4,096 items take some tens of MB."""
_LEAST_DEVIATION = 1e-3
"""Least deviation that counts, relative to a user's largest score.

Below it, the rounding of a score, of some 1e-7, would exceed the tolerance of ranking.
"""


class Standardised(NamedTuple):
    """A model, and the mean and the reciprocal deviation of each user's scores, both (n_users,).

    The reciprocal is 0 for a user whose scores are all equal but for rounding.
    """

    model: Model
    mean: Tensor
    scale: Tensor


@torch.inference_mode()
def standardise(model: Model, n_users: int, n_items: int) -> Standardised:
    """Return a model with the mean and the reciprocal standard deviation of each user's scores.

    They are those of the scores of all items, or of `MAX_ITEMS` of them, the same for all models.

    Raises:
        DivergenceError: if a score is not finite.
    """
    items = np.arange(n_items)
    if n_items > MAX_ITEMS:
        items = np.sort(np.random.default_rng(0).choice(n_items, MAX_ITEMS, replace=False))
    scorer = ModelScorer(model, n_items, items)
    mean = torch.empty(n_users, device=scorer.device)
    scale = torch.empty(n_users, device=scorer.device)
    for start in range(0, n_users, _USERS):
        user = torch.arange(start, min(start + _USERS, n_users), device=scorer.device)
        scores = check_finite(scorer.score_head(user))  # (B, n)
        deviation, mean[user] = torch.std_mean(scores, 1, correction=0)
        is_constant = deviation <= _LEAST_DEVIATION * scores.abs().amax(1)
        scale[user] = torch.where(is_constant, 0.0, 1 / deviation)
    return Standardised(model, mean, scale)


def build_ensemble(members: Sequence[Standardised], weights: Sequence[float]) -> Ensemble:
    """Return the ensemble of members with a weight each."""
    mean = torch.stack([member.mean for member in members], 1)
    scale = torch.stack([member.scale for member in members], 1)
    return Ensemble([member.model for member in members], mean.new_tensor(weights), mean, scale)
