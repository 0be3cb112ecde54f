"""Weights of a user's positives by their recency, for data with times."""

import numpy as np
import numpy.typing as npt

from recsys.config.sections import TrainingConfig
from recsys.data.interactions import Interactions


def recency_weights(training: TrainingConfig, data: Interactions) -> npt.NDArray[np.float32] | None:
    """Return the weights (n,) of the training positives, with a mean of 1 for each user.

    A weight halves with every `training.recency_half_life` later positives of the user, down to
    `training.recency_floor` of the weight of the last. None if all weights are 1.
    """
    if training.recency_half_life is None:
        return None
    assert data.n_later is not None, "`data.resolve` refuses a half-life for data without times"
    n_later = np.arange(data.n_later.max(initial=0) + 1)
    of_number = np.maximum(0.5 ** (n_later / training.recency_half_life), training.recency_floor)
    weights: npt.NDArray[np.float32] = of_number.astype(np.float32)[data.n_later]
    count = np.bincount(data.user, minlength=data.n_users)
    total = np.bincount(data.user, weights, minlength=data.n_users)
    scale = count / np.maximum(total, 1.0)  # the last positive of a user has the weight 1
    weights *= scale.astype(np.float32)[data.user]
    return weights
