"""The processed data in memory, as trials, final training and evaluation read them.

All fields are numpy arrays of contiguous ids, so that all trials of a node map one copy in Ray's
object store.
"""

from dataclasses import dataclass, replace

import numpy as np

from recsys.data.negatives import UserItemIndex
from recsys.kernels.arrays import IntArray


@dataclass(frozen=True)
class HeldOut:
    """Interactions of the split that is ranked, sorted by user and item.

    All are of users with a training positive or a given one.

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
class Given:
    """Interactions of users who are held out whole: what is known of them, besides what is ranked.

    Nothing is trained on them. A user's side is computed from them, and ranking leaves them out.

    Attributes:
        user: users of the positives, (n,) int32, sorted by user and item.
        item: items of the positives, (n,) int32.
        low_user: users of the low ratings, (m,) int32.
        low_item: items of the low ratings, (m,) int32.
        n_later: for each positive, the number of later given ones of its user, (n,) int32; None for
            data without times.
    """

    user: IntArray
    item: IntArray
    low_user: IntArray
    low_item: IntArray
    n_later: IntArray | None


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
        seen: positives and low ratings by user, of training and given ones. They are never drawn as
            negatives, and ranking leaves them out.
        held_out: the split that is ranked, validation in a search and test at the end; None if
            nothing is ranked.
        n_later: for each training positive, the number of later ones of its user, (n,) int32; None
            for data without times.
        n_recent: for each item, the number of training positives among the latest tenth of all,
            (n_items,) int64; None for data without times.
        given: interactions of users who are held out whole; None if each user may be trained on.
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
    given: Given | None = None

    @property
    def n_trained_users(self) -> int:
        """Users that training counts: all, or without those who are held out whole."""
        if self.given is None:
            return self.n_users
        has_rows = np.zeros(self.n_users, dtype=bool)
        has_rows[self.user] = has_rows[self.low_user] = True
        return int(has_rows.sum())

    @property
    def n_pairs(self) -> int:
        """Pairs of a user and an item that training counts."""
        return self.n_trained_users * self.n_items

    def histories(self) -> "Interactions":
        """Return the interactions that users' sides are computed from: those of training and given.

        The result has no fixed negatives.
        """
        if self.given is None:
            return self
        given, n_later = self.given, None
        user = np.concatenate([self.user, given.user])
        order = np.argsort(user, kind="stable")
        if self.n_later is not None and given.n_later is not None:
            n_later = np.concatenate([self.n_later, given.n_later])[order]
        return replace(
            self,
            user=user[order],
            item=np.concatenate([self.item, given.item])[order],
            negatives=None,
            low_user=np.concatenate([self.low_user, given.low_user]),
            low_item=np.concatenate([self.low_item, given.low_item]),
            n_later=n_later,
            given=None,
        )
