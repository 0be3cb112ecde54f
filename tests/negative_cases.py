"""Users, the items that they have seen, and the items on each user's line of unseen ones."""

import numpy as np
from hypothesis import strategies as st

from recsys.data.negatives import UserItemIndex, index_pairs
from recsys.kernels.arrays import IntArray

N_ITEMS = 12
SEEN = [[0, 1, 2], [11], [], [0, 5, 6, 11], list(range(11)), [3, 4, 5, 6, 7, 8]]
WEIGHTS = np.array([5, 1, 3, 2, 8, 1, 1, 4, 2, 9, 3, 6], dtype=np.int64)

CLUMP = [*range(100, 160), 3000, 4999]
"""Of 5000 items, sixty seen ones in a row and two far from them."""

HISTORIES = st.integers(1, 40).flatmap(
    lambda n_items: st.tuples(
        st.just(n_items), st.lists(st.sets(st.integers(0, n_items - 1)), min_size=1, max_size=4)
    )
)
"""A catalogue of up to 40 items, and the items that up to 4 users have seen, possibly all."""


def index_of(seen: list[list[int]] | list[set[int]], n_items: int) -> UserItemIndex:
    pairs = [(user, item) for user, items in enumerate(seen) for item in items]
    user, item = np.array(pairs, dtype=np.int32).reshape(-1, 2).T
    return index_pairs(user, item, len(seen), n_items)


def line_of(seen: list[int] | set[int], n_items: int, weights: IntArray | None) -> list[int]:
    """Return the items of a user's line, each as often as it is long."""
    return [
        item
        for item in range(n_items)
        if item not in seen
        for _ in range(1 if weights is None else int(weights[item]))
    ]
