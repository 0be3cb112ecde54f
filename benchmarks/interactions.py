"""Interactions to measure on: skewed synthetic ones, ones with tastes to learn, embedded ones."""

from importlib import resources

import numpy as np
import pyarrow.parquet as pq

from recsys.data.interactions import HeldOut, Interactions
from recsys.data.negatives import UserItemIndex, index_pairs
from recsys.data.preprocessing.split_strategies import leave_one_out
from recsys.kernels.arrays import IntArray

SIZES = {
    "6,040 x 3,706": (6_040, 3_706, 575_000),
    "138,493 x 26,744": (138_493, 26_744, 10_000_000),
}
"""Users, items and positives of MovieLens-1M and MovieLens-20M at a threshold of 4."""


def draw_index(n_users: int, n_items: int, n_pairs: int) -> UserItemIndex:
    """Draw about `n_pairs` interactions: log-normal numbers per user, items by Zipf's law."""
    rng = np.random.default_rng(0)
    share = rng.lognormal(0.0, 1.0, n_users)
    user = np.repeat(
        np.arange(n_users), np.maximum(1, np.rint(share / share.sum() * n_pairs)).astype(np.int64)
    )
    popularity = np.cumsum(1 / np.arange(20, n_items + 20))
    item = np.searchsorted(popularity, rng.random(len(user)) * popularity[-1]).astype(np.int32)
    return index_pairs(
        user.astype(np.int32), rng.permutation(n_items).astype(np.int32)[item], n_users, n_items
    )


def make_interactions(index: UserItemIndex, n_positives: int, n_held_out: int) -> Interactions:
    """Return `n_positives` random interactions, with a held-out item for `n_held_out` users.

    All interactions of `index` count as seen: no negative is drawn from them, and ranking masks
    them.
    """
    rng = np.random.default_rng(1)
    rows = np.sort(rng.choice(len(index.items), n_positives, replace=False))
    held_out_user = np.sort(rng.choice(index.n_users, n_held_out, replace=False)).astype(np.int32)
    held_out_item = rng.integers(0, index.n_items, n_held_out, dtype=np.int32)
    none = np.empty(0, dtype=np.int32)
    held_out = HeldOut(held_out_user, held_out_item, none, none, None, None)
    return Interactions(
        index.n_users,
        index.n_items,
        index.users()[rows],
        index.items[rows],
        None,
        none,
        none,
        index,
        held_out,
    )


def read_embedded() -> Interactions:
    """Return the embedded ratings of at least 4, split by leave-one-out, with validation held out.

    Low ratings are left out.
    """
    with resources.as_file(
        resources.files("recsys.data") / "ml-latest-small" / "ratings.parquet"
    ) as path:
        table = pq.read_table(path).to_pandas()
    user, item, rating, time = (table[name].to_numpy() for name in table.columns)
    user, item = (np.unique(ids, return_inverse=True)[1].astype(np.int32) for ids in (user, item))
    order = np.lexsort((item, user))
    positive = rating[order] >= 4
    split = leave_one_out(user[order], positive, time[order].astype(np.float64), order)
    user, item, split = user[order][positive], item[order][positive], split[positive]
    return _hold_out(user, item, split == 0, split == 1)


def make_tastes(n_users: int, n_items: int, n_pairs: int, dim: int = 8) -> Interactions:
    """Draw items by popularity and by the inner product with a user's taste.

    One item of each user is held out.
    """
    rng = np.random.default_rng(2)
    tastes, kinds = rng.normal(size=(n_users, dim)), rng.normal(size=(n_items, dim)) / dim**0.5
    log_popularity = -np.log(np.arange(20, n_items + 20))
    n_each = n_pairs // n_users
    chosen = [
        np.argpartition(-(log_popularity + 2 * kinds @ taste + rng.gumbel(size=n_items)), n_each)[
            :n_each
        ]
        for taste in tastes
    ]
    user = np.repeat(np.arange(n_users, dtype=np.int32), n_each)
    item = np.concatenate(chosen).astype(np.int32)
    held_out = np.arange(len(user)) % n_each == 0
    order = np.lexsort((item, user))
    return _hold_out(user[order], item[order], ~held_out[order], held_out[order])


def _hold_out(user: IntArray, item: IntArray, train: IntArray, held_out: IntArray) -> Interactions:
    n_users, n_items = int(user.max()) + 1, int(item.max()) + 1
    seen = index_pairs(user[train], item[train], n_users, n_items)
    none = np.empty(0, dtype=np.int32)
    held = HeldOut(user[held_out], item[held_out], none, none, None, None)
    return Interactions(n_users, n_items, user[train], item[train], None, none, none, seen, held)
