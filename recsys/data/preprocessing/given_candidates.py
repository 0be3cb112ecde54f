"""Candidates of test items that the data themselves give (`readers.candidates`)."""

from dataclasses import dataclass

import numpy as np

from recsys.data.preprocessing.buckets import Rows
from recsys.data.preprocessing.split_strategies import Mask
from recsys.data.readers.candidates import POSITION_BITS
from recsys.kernels.arrays import IntArray


@dataclass(frozen=True)
class GivenCandidates:
    """Candidates by held-out pair.

    Attributes:
        key: user * n_items + item of each pair, (p,) int64, sorted.
        items: the candidates of each pair, (p, c) int32, padded with -1.
    """

    key: IntArray
    items: IntArray

    def find(self, key: IntArray) -> tuple[IntArray, Mask]:
        """Return the candidates (h, c) of pairs `key` (h,), and which of them (h,) have none."""
        if len(self.key) == 0:
            none = np.full((len(key), self.items.shape[1]), -1, dtype=np.int32)
            return none, np.ones(len(key), dtype=bool)
        index = np.minimum(np.searchsorted(self.key, key), len(self.key) - 1)
        return self.items[index], self.key[index] != key


def collect_candidates(rows: Rows, n_items: int, width: int) -> GivenCandidates:
    """Return the candidates of a bucket.

    A pair's own item, if it is among its candidates, is replaced by -1.

    Args:
        rows: rows of the candidate file. `order` is `line << POSITION_BITS | position`; the
            held-out item is at position 0, and its candidates follow.
        n_items: items of the data.
        width: largest number of candidates of a pair.
    """
    # Each row once, in the file's order: a k-core round that ran twice may have left some twice.
    rows = rows.take(np.unique(rows.order, return_index=True)[1])
    position = rows.order & ((1 << POSITION_BITS) - 1)
    is_candidate = position > 0
    pair = np.cumsum(position == 0) - 1  # the pair, from 0, that each row belongs to
    target = rows.item[~is_candidate]  # (p,)
    items = np.full((len(target), width), -1, dtype=np.int32)
    items[pair[is_candidate], position[is_candidate] - 1] = rows.item[is_candidate]
    items[items == target[:, None]] = -1
    # A pair whose item is gone gets a key that no pair of rows has.
    key = np.where(target < 0, -1, rows.user[~is_candidate] * np.int64(n_items) + target)
    order = np.argsort(key, kind="stable")
    return GivenCandidates(key[order], items[order])
