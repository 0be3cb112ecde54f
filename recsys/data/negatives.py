"""Items that a user has not seen, and exact draws of negatives from them.

Preprocessing draws fixed negatives and candidates here with numpy. A trial draws fresh negatives
with torch, by the same arithmetic (`training.negatives`).

No draw is ever rejected. A user's unseen items lie on a line of integers, in order, each as long as
its weight. A draw is a uniform point of this line, and the item that covers it. With unit weights
and sorted seen items a_0 < a_1 < ..., there are a_j - j unseen items before a_j. So the unseen item
at point r is r + #{j : a_j - j <= r}. The sorted keys a_j - j of all users, each user's beyond
those of the user before, make this count one `searchsorted` for a whole batch. With weights, the
same count is taken in units of weight. All arithmetic is in integers, so draws are exact.
"""

from dataclasses import dataclass

import numpy as np

from recsys.kernels.arrays import IntArray

TOTAL_WEIGHT = 1 << 36
"""Approximate sum of all items' weights: fine enough for a share of 1e-10, while the keys of 2^26
users still fit into 64 bits."""


@dataclass(frozen=True)
class UserItemIndex:
    """Items of every user, each once, in one flat array sorted by user and item.

    Attributes:
        offsets: user u's items are `items[offsets[u]:offsets[u + 1]]`, (n_users + 1,) int64.
        items: items of all users, (n_pairs,) int32.
        n_items: items of the data set.
    """

    offsets: IntArray
    items: IntArray
    n_items: int

    @property
    def n_users(self) -> int:
        """Number of users of the data set, including those without an item."""
        return len(self.offsets) - 1

    def users(self) -> IntArray:
        """Return the user of each entry of `items`, (n_pairs,) int32."""
        return np.repeat(np.arange(self.n_users, dtype=np.int32), np.diff(self.offsets))


def index_pairs(user: IntArray, item: IntArray, n_users: int, n_items: int) -> UserItemIndex:
    """Return the index of pairs (n,), (n,), which may be in any order and repeat."""
    # np.unique hashes integers, which takes ten times as long as this sort.
    keys = np.sort(user.astype(np.int64) * n_items + item)
    keys = keys[np.r_[True, keys[1:] != keys[:-1]][: len(keys)]]
    offsets = np.searchsorted(keys, np.arange(n_users + 1, dtype=np.int64) * n_items)
    return UserItemIndex(offsets, (keys % n_items).astype(np.int32), n_items)


def popularity_weights(item: IntArray, n_items: int, alpha: float) -> IntArray:
    """Return integer weights of the items, (n_items,) int64, proportional to count ** alpha.

    `item` (n,): items of the interactions. An item without interactions counts as if it had one.

    Source: Mikolov et al. 2013, arXiv:1310.4546, sec. 2.2 (the exponent 0.75).
    """
    share = np.maximum(np.bincount(item, minlength=n_items), 1).astype(np.float64) ** alpha
    weights: IntArray = np.maximum(np.rint(share / share.sum() * TOTAL_WEIGHT), 1).astype(np.int64)
    return weights


@dataclass(frozen=True)
class UnseenLines:
    """Every user's line of unseen items.

    Attributes:
        mass: length of each user's line: the weights of the user's unseen items, (n_users,) int64.
        stride: sum of all items' weights. No line is longer.
        offsets: index of each user's first key, (n_users + 1,) int64.
        keys: for each seen item, the weight of the user's unseen items before it, plus the user
            times `stride`, (n_pairs,) int64 ascending.
        seen_before: total weight of all seen items before each one, with those of earlier users,
            (n_pairs + 1,) int64; None for unit weights.
        item_ends: weight of all items up to and including each item, (n_items,) int64; None for
            unit weights.
    """

    mass: IntArray
    stride: int
    offsets: IntArray
    keys: IntArray
    seen_before: IntArray | None
    item_ends: IntArray | None


def unseen_lines(seen: UserItemIndex, weights: IntArray | None = None) -> UnseenLines:
    """Return the lines of the items not in `seen`; `weights`: (n_items,), None for unit weights."""
    user, offsets = seen.users().astype(np.int64), seen.offsets.astype(np.int64)
    if weights is None:
        item_ends, stride = None, seen.n_items
        length = np.ones(len(seen.items), dtype=np.int64)
        start = seen.items.astype(np.int64)
    else:
        item_ends = np.cumsum(weights, dtype=np.int64)
        stride = int(item_ends[-1])
        length = weights[seen.items].astype(np.int64)
        start = item_ends[seen.items] - length
    before = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(length)])  # (n_pairs + 1,)
    mass = stride - (before[offsets[1:]] - before[offsets[:-1]])
    # Of the weight before a seen item, take off that of the user's seen items.
    keys = user * stride + start - (before[:-1] - before[offsets[:-1]][user])
    return UnseenLines(mass, stride, offsets, keys, None if weights is None else before, item_ends)


class NegativeSampler:
    """Sampler of items that a user has not seen, uniform or by integer weights (n_items,).

    The caller must not draw for a user who has seen every item. Preprocessing refuses such users.
    """

    def __init__(self, seen: UserItemIndex, weights: IntArray | None = None) -> None:
        self.lines = unseen_lines(seen, weights)

    def item_at(self, user: IntArray, point: IntArray) -> IntArray:
        """Return the items at points (B, n) of the lines of users (B,), (B, n) int64.

        A point is from 0 to the line's length, exclusive.
        """
        lines, first = self.lines, self.lines.offsets[user][:, None]
        key = user[:, None] * lines.stride + point
        index: IntArray = np.searchsorted(lines.keys, key, side="right")
        if lines.seen_before is None or lines.item_ends is None:
            return point + (index - first)
        position = point + lines.seen_before[index] - lines.seen_before[first]
        items: IntArray = np.searchsorted(lines.item_ends, position, side="right")
        return items

    def sample(self, user: IntArray, n: int, generator: np.random.Generator) -> IntArray:
        """Draw `n` items for each user independently: (B,) int64 -> (B, n) int64."""
        point = generator.integers(0, self.lines.mass[user][:, None], size=(len(user), n))
        return self.item_at(user, point)

    def sample_distinct(self, user: IntArray, n: int, generator: np.random.Generator) -> IntArray:
        """Draw `n` different items for each user, uniform among all such sets.

        Takes users (B,) int64 and returns (B, n) int64. Needs unit weights, and `n` unseen items of
        each user.

        Source: Floyd's algorithm, in Bentley and Floyd 1987, Communications of the ACM 30(9), one
        step for all users at a time.
        """
        mass = self.lines.mass[user]
        chosen = np.empty((len(user), n), dtype=np.int64)
        for step in range(n):
            top = mass - n + step
            draw = generator.integers(0, top + 1)
            is_taken = (chosen[:, :step] == draw[:, None]).any(axis=1)
            chosen[:, step] = np.where(is_taken, top, draw)
        return self.item_at(user, chosen)
