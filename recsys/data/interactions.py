"""The in-memory form of the processed data: what a trial, the final training and the evaluation read.

All fields are numpy arrays of contiguous ids, so that one copy in Ray's object store is mapped by every trial of a node.
"""

from dataclasses import dataclass

from recsys.data.negatives import IntArray, UserItemIndex


@dataclass(frozen=True)
class HeldOut:
    """Interactions kept from training, sorted by user and item.

    All are of users with a training positive. `user`, `item` (n,) int32: positives. `low_user`, `low_item` (m,) int32: low
    ratings. `negatives` (n, data.n_negatives) int32: the unobserved half of the labelled pairs, for the random split alone.
    `candidates` (n, c) int32: what each positive is ranked among under the sampled protocol, -1 where one is left out.
    """

    user: IntArray
    item: IntArray
    low_user: IntArray
    low_item: IntArray
    negatives: IntArray | None
    candidates: IntArray | None


@dataclass(frozen=True)
class Interactions:
    """One split of a data set.

    `user`, `item` (n,) int32: training positives sorted by user and item. `negatives` (n, data.n_negatives) int32: their fixed
    negatives, None where they are drawn anew. `low_user`, `low_item` (m,) int32: low ratings of the training part.
    `known`: what training has seen of each user, its low ratings included: never drawn as a negative, masked in ranking.
    `held_out`: what is ranked, validation in the search, test in the end; None where nothing is.
    """

    n_users: int
    n_items: int
    user: IntArray
    item: IntArray
    negatives: IntArray | None
    low_user: IntArray
    low_item: IntArray
    known: UserItemIndex
    held_out: HeldOut | None
