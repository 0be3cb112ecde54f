"""Interactions in the order of their times."""

import math

import numpy as np

from recsys.kernels.arrays import IntArray

RECENT_SHARE = 0.1
"""Share of the interactions that count as recent."""


def count_later(user: IntArray, time: IntArray) -> IntArray:
    """Return how many interactions of the same user are later than each, (n,) int32.

    `user` (n,) is sorted. `time` (n,) sorts as the times do. Interactions at the same time have
    the same number.
    """
    order = np.lexsort((time, user))
    sorted_time = time[order]
    is_last = np.r_[(np.diff(user) != 0) | (np.diff(sorted_time) != 0), True][: len(user)]
    last = np.flatnonzero(is_last)  # of each group of a user's interactions at one time
    group = np.cumsum(is_last) - is_last
    last_of_user = np.searchsorted(user, user, side="right") - 1
    n_later = np.empty(len(user), dtype=np.int32)
    n_later[order] = last_of_user - last[group]
    return n_later


def count_recent(item: IntArray, time: IntArray, n_items: int) -> IntArray:
    """Return the number of recent interactions of each item, (n_items,) int64.

    They are the latest `RECENT_SHARE` of all interactions (n,), and any others at the time of the
    earliest of them.
    """
    if len(item) == 0:
        return np.zeros(n_items, dtype=np.int64)
    first = len(item) - math.ceil(RECENT_SHARE * len(item))
    is_recent = time >= np.partition(time, first)[first]
    return np.bincount(item[is_recent], minlength=n_items)
