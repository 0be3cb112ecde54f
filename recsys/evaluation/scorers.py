"""Scorers: scores of users and items by a model, in blocks that fit in the cache.

`ranking` ranks by their scores. The baselines are scorers too.
"""

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from recsys.data.interactions import Interactions
from recsys.errors import DivergenceError
from recsys.kernels.arrays import IntArray
from recsys.kernels.lookup import rows_of
from recsys.kernels.tensors import as_tensor
from recsys.models import Model, Side

USER_BLOCK = {"cpu": 32, "cuda": 256}
ITEM_BLOCK = {"cpu": 512, "cuda": 4096}
"""Users and items of a block, by type of device.

On a CPU with 1 MiB of second-level cache per core, 16 to 64 users by 256 to 512 items are equally
fast within 5%.
"""
HEAD_SHARE, MIN_HEAD = 32, 256
"""The head of a catalogue is the most popular 1 / HEAD_SHARE of its items, at least MIN_HEAD.

Heads of 1/64 to 1/8 are equally fast within a fifth on catalogues of 3,706 to 17,388 items.
"""


class Scorer(Protocol):
    """Source of finite scores: a model or a baseline. A higher score ranks better."""

    device: torch.device

    def score_all(self, user: Tensor) -> Tensor:
        """Return the scores (B, n_items) of all items for users (B,) int64.

        The next call may overwrite the result.
        """

    def score_pairs(self, user: Tensor, item: Tensor) -> Tensor:
        """Return the scores (B, n) of items (B, n) int64 for users (B,) int64."""


class ModelScorer:
    """Scorer by a model in evaluation mode.

    It computes the items' sides once: make a new one after the weights have changed. `popular`
    (n_head,) int64: the head of the catalogue, on which `rank_all` decides most ranks.
    """

    def __init__(self, model: Model, n_items: int, popular: IntArray | None = None) -> None:
        self.model = model.eval()
        self.device = next(model.parameters()).device
        self.n_items = n_items
        self.block_size = ITEM_BLOCK[self.device.type]
        self.popular = popular
        with torch.inference_mode():
            sides = self.model.item_side(None)
            for factor in sides.factors:
                check_finite(rows_of(factor))
            self.head = None if popular is None else self._side_of(popular)
        self.blocks: list[Side] = [
            sides.rows(slice(start, start + self.block_size))
            for start in range(0, n_items, self.block_size)
        ]
        self.buffer = torch.empty(0, n_items, device=self.device)

    @torch.inference_mode()
    def score_all(self, user: Tensor) -> Tensor:
        """Return the scores (B, n_items) of all items for users (B,).

        The next call overwrites the result.
        """
        if len(self.buffer) < len(user):
            self.buffer = torch.empty(len(user), self.n_items, device=self.device)
        scores = self.buffer[: len(user)]
        user_side = self.model.user_side(user)
        starts = range(0, self.n_items, self.block_size)
        for start, block in zip(starts, self.blocks, strict=True):
            scores[:, start : start + self.block_size] = self.model.score(user_side, block)
        return scores

    @torch.inference_mode()
    def score_pairs(self, user: Tensor, item: Tensor) -> Tensor:
        """Return the scores (B, n) of items (B, n) for users (B,)."""
        scores: Tensor = self.model(user, item)
        return scores

    @torch.inference_mode()
    def score_head(self, user: Tensor) -> Tensor:
        """Return the scores (B, n_head) of the popular items for users (B,)."""
        assert self.head is not None
        return self.model.score(self.model.user_side(user), self.head)

    def _side_of(self, items: IntArray) -> Side:
        return self.model.item_side(as_tensor(items, self.device))


def scorer_of(model: Model, data: Interactions) -> ModelScorer:
    """Return the scorer by a model whose head is that of the data's training positives."""
    return ModelScorer(model, data.n_items, popular_items(data.item, data.n_items))


def popular_items(item: IntArray, n_items: int) -> IntArray | None:
    """Return the head of a catalogue by its training positives `item` (n,), most popular first.

    None for a catalogue so small that ranking all of it costs little more.
    """
    size = max(MIN_HEAD, n_items // HEAD_SHARE)
    if n_items < 4 * size:
        return None
    return np.argsort(-np.bincount(item, minlength=n_items), kind="stable")[:size]


def check_finite(scores: Tensor) -> Tensor:
    """Return the scores themselves.

    Raises:
        DivergenceError: if one of them is not finite.
    """
    # A sum needs one pass and no temporary. It is finite if and only if all scores are, unless it
    # overflows, beyond 1e38.
    total = float(scores.sum())
    if not np.isfinite(total):
        raise DivergenceError(
            "scores", "must be finite", f"a sum of {total}", "Lower training.learning_rate."
        )
    return scores
