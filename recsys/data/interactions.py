"""The processed data in memory, as trials, final training and evaluation read them.

All fields are numpy arrays of contiguous ids, so that all trials of a node map one copy in Ray's
object store.
"""

from dataclasses import dataclass

from recsys.data.negatives import UserItemIndex
from recsys.kernels.arrays import IntArray


@dataclass(frozen=True)
class HeldOut:
    """Interactions of the split that is ranked, sorted by user and item.

    All are of users with a training positive.

    Attributes:
        user: users of the positives, (n,) int32.
        item: items of the positives, (n,) int32.
        low_user: users of the low ratings, (m,) int32.
        low_item: items of the low ratings, (m,) int32.
        negatives: unseen items that the random split labels as negative, (n, data.n_negatives)
            int32; None for other splits.
        candidates: items that each positive is ranked among under the sampled protocol, (n, c)
            int32, padded with -1; None without them.
    """

    user: IntArray
    item: IntArray
    low_user: IntArray
    low_item: IntArray
    negatives: IntArray | None
    candidates: IntArray | None


@dataclass(frozen=True)
class Interactions:
    """Interactions to train on, and those that are ranked.

    Attributes:
        n_users: users of the data set.
        n_items: items of the data set.
        user: users of the training positives, (n,) int32, sorted by user and item.
        item: items of the training positives, (n,) int32.
        negatives: fixed negatives of the training positives, (n, data.n_negatives) int32; None
            if each epoch draws new ones.
        low_user: users of the low ratings in training, (m,) int32.
        low_item: items of the low ratings in training, (m,) int32.
        seen: positives and low ratings of training by user. They are never drawn as negatives, and
            ranking leaves them out.
        held_out: the split that is ranked, validation in a search and test at the end; None if
            nothing is ranked.
        n_later: for each training positive, the number of later ones of its user, (n,) int32; None
            for data without times.
        n_recent: for each item, the number of training positives among the latest tenth of all,
            (n_items,) int64; None for data without times.
    """

    n_users: int
    n_items: int
    user: IntArray
    item: IntArray
    negatives: IntArray | None
    low_user: IntArray
    low_item: IntArray
    seen: UserItemIndex
    held_out: HeldOut | None
    n_later: IntArray | None = None
    n_recent: IntArray | None = None
