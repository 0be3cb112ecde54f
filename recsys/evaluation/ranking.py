"""From scores to ranks of the held-out items, and to the items that a user is recommended.

A block of users is scored against all items at a time; the block's scores and the model's temporaries for a slice of the items
fit the cache, and the memory does not grow with the number of users. A rank counts the items with a higher score, a target's own
read from the same block. Equal scores rank in a random order: a hash of user and item decides, so that a constant scorer gets
what chance would give it, and the same one each time. An item that the user knows ranks behind all that it does not know.
"""

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recsys.data.interactions import HeldOut
from recsys.data.negatives import IntArray, UserItemIndex
from recsys.errors import DivergenceError
from recsys.kernels.hashing import pack_pairs, splitmix64
from recsys.kernels.ragged import expand_numpy
from recsys.kernels.tensors import as_tensor
from recsys.models import Model, Side

USER_BLOCK = {"cpu": 32, "cuda": 256}
ITEM_BLOCK = {"cpu": 512, "cuda": 4096}
"""Users and items of a block. With 1 MiB of second-level cache a core, 16 to 64 users by 256 to 512 items are within 5%."""
PAIR_BLOCK = 4096
"""Cases that are ranked among their candidates at a time, times candidates."""


class Scorer(Protocol):
    """Anything that can be ranked: a model or a baseline. Scores are finite; only their order counts."""

    device: torch.device

    def score_all(self, user: Tensor) -> Tensor:
        """Users (B,) int64 -> scores (B, n_items) of all items, a buffer that the next call may overwrite."""

    def score_pairs(self, user: Tensor, item: Tensor) -> Tensor:
        """Users (B,) int64, items (B, n) int64 -> scores (B, n)."""


class ModelScorer:
    """A model in evaluation mode, its items' sides computed once. Make a new one when the weights have changed."""

    def __init__(self, model: Model, n_items: int) -> None:
        self.model = model.eval()
        self.device = next(model.parameters()).device
        self.n_items = n_items
        self.width = ITEM_BLOCK[self.device.type]
        with torch.inference_mode():
            sides = self.model.item_side(None)
        self.blocks: list[Side] = [
            sides.rows(slice(first, first + self.width)) for first in range(0, n_items, self.width)
        ]
        self.buffer = torch.empty(0, n_items, device=self.device)

    @torch.inference_mode()
    def score_all(self, user: Tensor) -> Tensor:
        """Users (B,) -> scores (B, n_items), valid until the next call."""
        if len(self.buffer) < len(user):
            self.buffer = torch.empty(len(user), self.n_items, device=self.device)
        scores = self.buffer[: len(user)]
        user_side = self.model.user_side(user)
        for number, block in enumerate(self.blocks):
            scores[:, number * self.width : (number + 1) * self.width] = self.model.score(
                user_side, block
            )
        return scores

    @torch.inference_mode()
    def score_pairs(self, user: Tensor, item: Tensor) -> Tensor:
        """Users (B,), items (B, n) -> scores (B, n)."""
        scores: Tensor = self.model(user, item)
        return scores


@torch.inference_mode()
def rank_all(scorer: Scorer, held_out: HeldOut, known: UserItemIndex) -> IntArray:
    """Ranks (n,) int64 of the held-out positives among all items but the user's known ones.

    Raises:
        DivergenceError: if a score is not finite.
    """
    ranks = np.empty(len(held_out.user), dtype=np.int64)
    users, first = np.unique(held_out.user, return_index=True)
    bounds = np.append(first, len(held_out.user))
    size = USER_BLOCK[scorer.device.type]
    for start in range(0, len(users), size):
        block = users[start : start + size]
        stop = start + len(block)
        rows = np.repeat(np.arange(len(block)), np.diff(bounds[start : stop + 1]))
        targets = slice(bounds[start], bounds[stop])
        scores = score_unknown(scorer, block, known)
        ranks[targets] = _rank_targets(scores, block, rows, held_out.item[targets])
    return ranks


@torch.inference_mode()
def rank_among_candidates(scorer: Scorer, held_out: HeldOut) -> IntArray:
    """Ranks (n,) int64 of the held-out positives among themselves and their candidates, -1 left out.

    Raises:
        DivergenceError: if a score is not finite.
    """
    candidates = held_out.candidates
    assert candidates is not None
    ranks = np.empty(len(held_out.user), dtype=np.int64)
    size = max(1, PAIR_BLOCK // (1 + candidates.shape[1]))
    for start in range(0, len(ranks), size):
        rows = slice(start, start + size)
        item = np.column_stack([held_out.item[rows], candidates[rows]]).astype(np.int64)
        user = held_out.user[rows].astype(np.int64)
        scores = scorer.score_pairs(
            as_tensor(user, scorer.device), as_tensor(np.maximum(item, 0), scorer.device)
        )
        values = check_finite(scores).cpu().numpy()
        target, others = values[:, :1], np.where(item[:, 1:] < 0, -np.inf, values[:, 1:])
        key = _order_key(user[:, None], item)
        above = (others > target) | ((others == target) & (key[:, 1:] < key[:, :1]))
        ranks[rows] = above.sum(1)
    return ranks


@torch.inference_mode()
def top_items(
    scorer: Scorer, users: IntArray, known: UserItemIndex, k: int
) -> Iterator[tuple[int, IntArray, npt.NDArray[np.float32]]]:
    """Each user's k best items (k,) that it does not know, best first, with their scores (k,); fewer where fewer are left.

    Raises:
        DivergenceError: if a score is not finite.
    """
    size = USER_BLOCK[scorer.device.type]
    for start in range(0, len(users), size):
        block = users[start : start + size]
        scores = score_unknown(scorer, block, known)
        least = scores.topk(min(k, scores.shape[1]), dim=1).values[:, -1].cpu().numpy()
        for user, row, bound in zip(block.tolist(), scores.cpu().numpy(), least, strict=True):
            items = np.flatnonzero((row >= bound) & (row > -np.inf))
            items = items[np.lexsort((_order_key(user, items), -row[items]))][:k]
            yield user, items, row[items]


def score_unknown(scorer: Scorer, users: IntArray, known: UserItemIndex) -> Tensor:
    """Scores (B, n_items) of a block of users, -inf at the items that each user knows."""
    scores = check_finite(scorer.score_all(as_tensor(users.astype(np.int64), scorer.device)))
    first = known.offsets[users]
    row, index = expand_numpy(first, known.offsets[users + 1] - first)
    masked = row * scores.shape[1] + known.items[index]
    scores.view(-1)[as_tensor(masked, scorer.device)] = -torch.inf
    return scores


def check_finite(scores: Tensor) -> Tensor:
    """The scores themselves.

    Raises:
        DivergenceError: if one of them is not a finite number, which no rank could tell.
    """
    # The sum of the block is finite exactly if all scores are, short of sums beyond 1e38, and is one pass without a temporary.
    total = float(scores.sum())
    if not np.isfinite(total):
        raise DivergenceError(
            "scores", "must be finite", f"a sum of {total}", "Lower training.learning_rate."
        )
    return scores


def _rank_targets(scores: Tensor, users: IntArray, rows: IntArray, items: IntArray) -> IntArray:
    """Ranks (m,) of `items` (m,) in `rows` (m,) of the scores (B, n_items)."""
    ranks = np.empty(len(rows), dtype=np.int64)
    size = len(scores)
    for start in range(0, len(rows), size):
        row = as_tensor(rows[start : start + size], scores.device)
        item = as_tensor(items[start : start + size].astype(np.int64), scores.device)
        # One target a user in the order of the rows: the block itself, without a copy.
        lines = scores if len(row) == size and len(rows) == size else scores[row]
        target = lines.gather(1, item.unsqueeze(1))
        above = (lines > target).sum(1).cpu().numpy()
        not_below = (lines >= target).sum(1).cpu().numpy()
        for tied in np.flatnonzero(not_below > above + 1):
            equals = np.flatnonzero((lines[tied] == target[tied]).cpu().numpy())
            key = _order_key(users[rows[start + tied]], equals)
            above[tied] += np.count_nonzero(key < key[equals == items[start + tied]])
        ranks[start : start + size] = above
    return ranks


def _order_key(user: npt.ArrayLike, item: IntArray) -> npt.NDArray[np.uint64]:
    """Return a pseudo-random key of each pair, by which items of equal scores are ordered.

    Different items of a user have different keys. `user` and `item` broadcast.
    """
    return splitmix64(pack_pairs(user, item))
