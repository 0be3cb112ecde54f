"""Latents of all users, from their positives, for models that read histories.

Called by `gradient_descent` after each segment, and to fold in users. With
`training.recency_half_life` a positive has its weight by recency here, and not in training
(docs/decisions/0049-autoencoder.md).
"""

import numpy as np
import torch

from recsys.config.sections import TrainingConfig
from recsys.data.interactions import Interactions
from recsys.kernels.tensors import as_tensor
from recsys.models.histories import HistoryModel, history_of
from recsys.training.recency import recency_weights

_USERS = 1024
"""Users that are encoded at a time."""


@torch.inference_mode()
def store_latents(model: HistoryModel, training: TrainingConfig, data: Interactions) -> None:
    """Compute the latents of all users of `data`, who are those of the model, and store them."""
    model.eval()
    weights, device = recency_weights(training, data), model.latents.device
    counts = np.bincount(data.user, minlength=data.n_users)
    ends = np.concatenate([[0], np.cumsum(counts)])
    for first in range(0, data.n_users, _USERS):
        last = min(first + _USERS, data.n_users)
        some = slice(ends[first], ends[last])
        user, item = (as_tensor(ids[some], device).long() for ids in (data.user, data.item))
        weight = None if weights is None else as_tensor(weights[some], device)
        history = history_of(item, user - first, last - first, weight)
        model.latents[first:last] = model.encode(history)
