"""Ranks of the held-out items, and the best unseen items of a user, from the scores of a model.

Stands between the models and `evaluate`, and between the models and `serving`.

- The rank of a held-out item is the number of items with a higher score. Items that the user has
  seen count as worse than all unseen items.
- Items of equal scores are in a random order, which a hash of user and item fixes. A scorer that
  gives all items one score therefore ranks as chance does, and each time alike.
- Users are scored in blocks. The scores of a block, and what the model computes for a slice of the
  items, fit in the cache, and memory does not depend on the number of users.
"""

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recsys.data.interactions import HeldOut
from recsys.data.negatives import UserItemIndex
from recsys.errors import DivergenceError
from recsys.kernels.arrays import IntArray
from recsys.kernels.hashing import pack_pairs, splitmix64
from recsys.kernels.ragged import expand_numpy
from recsys.kernels.tensors import as_tensor
from recsys.models import Model, Side

USER_BLOCK = {"cpu": 32, "cuda": 256}
ITEM_BLOCK = {"cpu": 512, "cuda": 4096}
"""Users and items of a block, by type of device.

On a CPU with 1 MiB of second-level cache per core, 16 to 64 users by 256 to 512 items are equally
fast within 5%.
"""
PAIR_BLOCK = 4096
"""Pairs of user and item that are scored at a time, by rows of a user and its items."""


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

    It computes the items' sides once: make a new one after the weights have changed.
    """

    def __init__(self, model: Model, n_items: int) -> None:
        self.model = model.eval()
        self.device = next(model.parameters()).device
        self.n_items = n_items
        self.block_size = ITEM_BLOCK[self.device.type]
        with torch.inference_mode():
            sides = self.model.item_side(None)
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
def rank_all(scorer: Scorer, held_out: HeldOut, seen: UserItemIndex) -> IntArray:
    """Return the ranks (n,) int64 of the held-out positives among all items.

    An item of `seen` counts as worse than all unseen items of its user.

    Raises:
        DivergenceError: if a score is not finite.
    """
    ranks = np.empty(len(held_out.user), dtype=np.int64)
    # `held_out` is sorted by user: the positives of users[i] are at bounds[i]:bounds[i + 1].
    users, first = np.unique(held_out.user, return_index=True)
    bounds = np.append(first, len(held_out.user))
    size = USER_BLOCK[scorer.device.type]
    for start in range(0, len(users), size):
        block = users[start : start + size]
        stop = start + len(block)
        rows = np.repeat(np.arange(len(block)), np.diff(bounds[start : stop + 1]))
        targets = slice(bounds[start], bounds[stop])
        scores = score_unseen(scorer, block, seen)  # (B, n_items)
        ranks[targets] = _rank_targets(scores, block, rows, held_out.item[targets])
    return ranks


@torch.inference_mode()
def rank_among_candidates(scorer: Scorer, held_out: HeldOut) -> IntArray:
    """Return the rank (n,) int64 of each held-out positive among its own candidates.

    A candidate of -1 is padding and has no effect.

    Raises:
        DivergenceError: if a score is not finite.
    """
    candidates = held_out.candidates
    assert candidates is not None
    ranks = np.empty(len(held_out.user), dtype=np.int64)
    size = max(1, PAIR_BLOCK // (1 + candidates.shape[1]))
    for start in range(0, len(ranks), size):
        rows = slice(start, start + size)
        user = held_out.user[rows].astype(np.int64)  # (B,)
        item = np.column_stack([held_out.item[rows], candidates[rows]]).astype(np.int64)  # (B, 1+c)
        # Item 0 is scored in place of -1; its score is then replaced by -inf.
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
    scorer: Scorer, users: IntArray, seen: UserItemIndex, k: int
) -> Iterator[tuple[int, IntArray, npt.NDArray[np.float32]]]:
    """Yield each user with its k best unseen items (k,) and their scores (k,), best first.

    A user with fewer than k unseen items gets all of them.

    Raises:
        DivergenceError: if a score is not finite.
    """
    size = USER_BLOCK[scorer.device.type]
    for start in range(0, len(users), size):
        block = users[start : start + size]
        scores = score_unseen(scorer, block, seen)
        # `topk` breaks ties in its own way. It only finds the k-th best score here; the items at or
        # above it, which are more than k where scores are equal, are sorted by score and key.
        least = scores.topk(min(k, scores.shape[1]), dim=1).values[:, -1].cpu().numpy()
        for user, row, bound in zip(block.tolist(), scores.cpu().numpy(), least, strict=True):
            items = np.flatnonzero((row >= bound) & (row > -np.inf))
            items = items[np.lexsort((_order_key(user, items), -row[items]))][:k]
            yield user, items, row[items]


def score_unseen(scorer: Scorer, users: IntArray, seen: UserItemIndex) -> Tensor:
    """Return the scores (B, n_items) of a block of users (B,), -inf at each user's seen items."""
    scores = check_finite(scorer.score_all(as_tensor(users.astype(np.int64), scorer.device)))
    first = seen.offsets[users]
    row, index = expand_numpy(first, seen.offsets[users + 1] - first)
    masked = row * scores.shape[1] + seen.items[index]  # positions in the flattened scores
    scores.view(-1)[as_tensor(masked, scorer.device)] = -torch.inf
    return scores


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


def _rank_targets(scores: Tensor, users: IntArray, rows: IntArray, items: IntArray) -> IntArray:
    """Return the ranks (m,) of held-out items in the scores of a block.

    Args:
        scores: the scores of the block, (B, n_items).
        users: the users of the block, (B,).
        rows: the row of each held-out item, (m,).
        items: the held-out items, (m,).
    """
    ranks = np.empty(len(rows), dtype=np.int64)
    size = len(scores)  # targets at a time, so that temporaries are no larger than the block
    for start in range(0, len(rows), size):
        row = as_tensor(rows[start : start + size], scores.device)
        item = as_tensor(items[start : start + size].astype(np.int64), scores.device)
        # With one target per user, the rows are the block itself: no copy.
        lines = scores if len(row) == size and len(rows) == size else scores[row]  # (t, n_items)
        target = lines.gather(1, item.unsqueeze(1))  # (t, 1)
        above = (lines > target).sum(1).cpu().numpy()
        not_below = (lines >= target).sum(1).cpu().numpy()
        # The target itself is one of `not_below`; any more are ties, of which those with a smaller
        # key are ranked above it.
        for tied in np.flatnonzero(not_below > above + 1):
            equals = np.flatnonzero((lines[tied] == target[tied]).cpu().numpy())
            key = _order_key(users[rows[start + tied]], equals)
            above[tied] += np.count_nonzero(key < key[equals == items[start + tied]])
        ranks[start : start + size] = above
    return ranks


def _order_key(user: npt.ArrayLike, item: IntArray) -> npt.NDArray[np.uint64]:
    """Return the pseudo-random key of each pair, by which items of equal scores are ordered.

    Different items of a user have different keys. `user` and `item` broadcast.
    """
    return splitmix64(pack_pairs(user, item))
