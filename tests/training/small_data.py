"""Small interactions for the tests of training, made by hand or with a planted structure."""

import dataclasses

import numpy as np
import numpy.typing as npt

from recsys.data.interactions import Given, HeldOut, Interactions
from recsys.data.negatives import NegativeSampler, index_pairs
from recsys.kernels.arrays import IntArray

Pairs = list[tuple[int, int]]


def make_interactions(
    n_users: int,
    n_items: int,
    train: Pairs,
    held_out: Pairs,
    *,
    low: Pairs | None = None,
    held_out_low: Pairs | None = None,
    negatives: npt.ArrayLike | None = None,
    candidates: npt.ArrayLike | None = None,
) -> Interactions:
    user, item = _columns(train)
    low_user, low_item = _columns(low or [])
    seen = index_pairs(
        np.concatenate([user, low_user]), np.concatenate([item, low_item]), n_users, n_items
    )
    held = HeldOut(
        *_columns(held_out),
        *_columns(held_out_low or []),
        negatives=None if negatives is None else np.asarray(negatives, dtype=np.int32),
        candidates=None if candidates is None else np.asarray(candidates, dtype=np.int32),
    )
    return Interactions(n_users, n_items, user, item, None, low_user, low_item, seen, held)


def two_tastes(n_users: int = 60, n_items: int = 40, seed: int = 0) -> Interactions:
    """Return interactions of two kinds of users.

    Even users like even items and rate two odd ones low, odd users the other way around. One liked
    item of each user is held out.
    """
    rng = np.random.default_rng(seed)
    train, held_out, low = [], [], []
    for user in range(n_users):
        liked = rng.choice(np.arange(user % 2, n_items, 2), 9, replace=False).tolist()
        disliked = rng.choice(np.arange(1 - user % 2, n_items, 2), 2, replace=False).tolist()
        train += [(user, item) for item in liked[:-1]]
        held_out.append((user, liked[-1]))
        low += [(user, item) for item in disliked]
    return make_interactions(n_users, n_items, train, held_out, low=low)


def with_fixed_negatives(data: Interactions, n: int) -> Interactions:
    draws = NegativeSampler(data.seen).sample(
        data.user.astype(np.int64), n, np.random.default_rng(0)
    )
    return dataclasses.replace(data, negatives=draws.astype(np.int32))


def hold_out_users(data: Interactions, users: list[int]) -> Interactions:
    """Return the data in which the interactions of some users are given, and not trained on."""
    is_given, low_is_given = np.isin(data.user, users), np.isin(data.low_user, users)
    given = Given(
        data.user[is_given],
        data.item[is_given],
        data.low_user[low_is_given],
        data.low_item[low_is_given],
        None if data.n_later is None else data.n_later[is_given],
    )
    return dataclasses.replace(
        data,
        user=data.user[~is_given],
        item=data.item[~is_given],
        low_user=data.low_user[~low_is_given],
        low_item=data.low_item[~low_is_given],
        n_later=None if data.n_later is None else data.n_later[~is_given],
        given=given,
    )


def _columns(pairs: Pairs) -> tuple[IntArray, IntArray]:
    array = np.array(sorted(pairs), dtype=np.int32).reshape(-1, 2)
    return array[:, 0].copy(), array[:, 1].copy()
