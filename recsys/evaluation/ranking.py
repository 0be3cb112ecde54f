"""Ranks of the held-out items from the scores of a model.

`evaluate` calls it.

- The rank of a held-out item is the number of items with a higher score. Items that the user has
  seen count as worse than all unseen items.
- Items of equal scores are in a random order, which a hash of user and item fixes. A scorer that
  gives all items one score therefore ranks as chance does, and always in the same order.
- Metrics at k depend only on ranks below k. A held-out item that the most popular items push to k
  or further keeps that rank; only the ranks of the others are computed on all items.
- Users are scored in blocks. The scores of a block, and what the model computes for a slice of the
  items, fit in the cache, and memory does not depend on the number of users.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recsys.data.interactions import HeldOut
from recsys.data.negatives import UserItemIndex
from recsys.evaluation.scorers import USER_BLOCK, ModelScorer, Scorer, check_finite
from recsys.kernels.arrays import IntArray
from recsys.kernels.hashing import pack_pairs, splitmix64
from recsys.kernels.ragged import expand_numpy
from recsys.kernels.tensors import as_tensor

TOLERANCE = 1e-4
"""Difference of two scores, relative to the largest of the user's, that rounding cannot explain.

A score of float32 sums depends on the shape of the product by some 1e-6.
"""
PAIR_BLOCK = 4096
"""Pairs of user and item that are scored at a time, in rows of one user each."""


@torch.inference_mode()
def rank_all(
    scorer: Scorer, held_out: HeldOut, seen: UserItemIndex, cutoff: int | None = None
) -> IntArray:
    """Return the ranks (n,) int64 of the held-out positives among all items.

    An item of `seen` counts as worse than all unseen items of its user. Ranks of `cutoff` and
    beyond are `cutoff`; None for exact ranks.

    Raises:
        DivergenceError: if a score is not finite.
    """
    if cutoff is None:
        return _rank_exactly(scorer, held_out, seen)
    if (
        not isinstance(scorer, ModelScorer)
        or scorer.popular is None
        or cutoff > len(scorer.popular)  # the head cannot hold that many better items
    ):
        return np.minimum(_rank_exactly(scorer, held_out, seen), cutoff)
    open_ranks = _may_rank_below(scorer, held_out, seen, cutoff)
    ranks = np.full(len(held_out.user), cutoff, dtype=np.int64)
    left = replace(held_out, user=held_out.user[open_ranks], item=held_out.item[open_ranks])
    ranks[open_ranks] = np.minimum(_rank_exactly(scorer, left, seen), cutoff)
    return ranks


def _may_rank_below(
    scorer: ModelScorer, held_out: HeldOut, seen: UserItemIndex, cutoff: int
) -> npt.NDArray[np.bool_]:
    """Return whether each held-out positive (n,) may have a rank less than `cutoff`.

    It cannot if `cutoff` unseen items of the head score higher by more than rounding. The check
    costs the head's share of ranking all items, and rules out most positives of sparse data.
    """
    assert scorer.popular is not None
    column = np.full(scorer.n_items, -1, dtype=np.int64)  # by item, its place in the head
    column[scorer.popular] = np.arange(len(scorer.popular))
    found = np.empty(len(held_out.user), dtype=np.bool_)
    for users, rows, targets in _user_blocks(held_out, 2 * USER_BLOCK[scorer.device.type]):
        user = as_tensor(users.astype(np.int64), scorer.device)
        scores = check_finite(scorer.score_head(user))  # (B, n_head)
        item = as_tensor(held_out.item[targets].astype(np.int64), scorer.device)
        row = as_tensor(rows, scorer.device)
        target = check_finite(scorer.score_pairs(user[row], item.unsqueeze(1))).squeeze(1)  # (m,)
        scale = scores.abs().amax(1)[row].maximum(target.abs())
        first = seen.offsets[users]
        seen_row, index = expand_numpy(first, seen.offsets[users + 1] - first)
        seen_column = column[seen.items[index]]
        masked = (seen_row * scores.shape[1] + seen_column)[seen_column >= 0]
        scores.view(-1)[as_tensor(masked, scorer.device)] = -torch.inf
        bound = scores.topk(cutoff, dim=1).values[:, -1][row]
        found[targets] = (target >= bound - TOLERANCE * scale).cpu().numpy()
    return found


def _rank_exactly(scorer: Scorer, held_out: HeldOut, seen: UserItemIndex) -> IntArray:
    """Return the ranks (n,) int64 of the held-out positives among all items."""
    ranks = np.empty(len(held_out.user), dtype=np.int64)
    for users, rows, targets in _user_blocks(held_out, USER_BLOCK[scorer.device.type]):
        scores = score_unseen(scorer, users, seen)  # (B, n_items)
        ranks[targets] = _rank_targets(scores, users, rows, held_out.item[targets])
    return ranks


def _user_blocks(held_out: HeldOut, size: int) -> Iterator[tuple[IntArray, IntArray, slice]]:
    """Yield blocks of users (B,), the row of each of their positives (m,), and where these are."""
    # `held_out` is sorted by user: the positives of users[i] are at bounds[i]:bounds[i + 1].
    users, first = np.unique(held_out.user, return_index=True)
    bounds = np.append(first, len(held_out.user))
    for start in range(0, len(users), size):
        block = users[start : start + size]
        stop = start + len(block)
        rows = np.repeat(np.arange(len(block)), np.diff(bounds[start : stop + 1]))
        yield block, rows, slice(bounds[start], bounds[stop])


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
        key = order_key(user[:, None], item)
        above = (others > target) | ((others == target) & (key[:, 1:] < key[:, :1]))
        ranks[rows] = above.sum(1)
    return ranks


def score_unseen(scorer: Scorer, users: IntArray, seen: UserItemIndex) -> Tensor:
    """Return the scores (B, n_items) of a block of users (B,), -inf at each user's seen items."""
    scores = check_finite(scorer.score_all(as_tensor(users.astype(np.int64), scorer.device)))
    first = seen.offsets[users]
    row, index = expand_numpy(first, seen.offsets[users + 1] - first)
    masked = row * scores.shape[1] + seen.items[index]  # positions in the flattened scores
    scores.view(-1)[as_tensor(masked, scorer.device)] = -torch.inf
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
            key = order_key(users[rows[start + tied]], equals)
            above[tied] += np.count_nonzero(key < key[equals == items[start + tied]])
        ranks[start : start + size] = above
    return ranks


def order_key(user: npt.ArrayLike, item: IntArray) -> npt.NDArray[np.uint64]:
    """Return the pseudo-random key of each pair, by which items of equal scores are ordered.

    Different items of a user have different keys. `user` and `item` broadcast.
    """
    return splitmix64(pack_pairs(user, item))
