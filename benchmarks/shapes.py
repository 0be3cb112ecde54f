"""Data sets of unlike shapes, cut from public ones or synthetic, on which searches are compared.

`write_shape` writes a data set as its users have it: a file of interactions and a config. The
public ones are read from a folder of the user's, with MovieLens-1M in the NCF paper's layout
(`ml-1m-ncf`), LastFM of HetRec 2011 (`lastfm`) and Yelp2018 of LightGCN (`yelp2018`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
import pandas as pd

from recsys.config.files import dump_yaml

_SEED = 0


@dataclass(frozen=True)
class Shape:
    """A data set.

    `read` returns its interactions from the folder of public data: columns `user_id`, `item_id`
    and, if it has them, `rating` and `timestamp`. `settings` are those of its config.
    """

    read: Callable[[Path], pd.DataFrame]
    settings: Mapping[str, Mapping[str, object]]


def _embedded(_folder: Path) -> pd.DataFrame:
    files = resources.files("recsys.data") / "ml-latest-small" / "ratings.parquet"
    with resources.as_file(files) as path:
        return pd.read_parquet(path).set_axis(["user_id", "item_id", "rating", "timestamp"], axis=1)


def _movielens(folder: Path) -> pd.DataFrame:
    path = folder / "ml-1m-ncf" / "ml-1m.train.rating"
    return pd.read_csv(path, sep="\t", usecols=[0, 1], names=["user_id", "item_id"])


def _movielens_users(folder: Path) -> pd.DataFrame:
    """Return all interactions of 2,000 random users, with times drawn at random."""
    return _with_random_times(_of_random_users(_movielens(folder), 2_000))


def _movielens_thin(folder: Path) -> pd.DataFrame:
    """Return a random eighth of the interactions of all users."""
    return _movielens(folder).sample(frac=1 / 8, random_state=_SEED)


def _lastfm(folder: Path) -> pd.DataFrame:
    splits = [pd.read_csv(folder / "lastfm" / f"{name}.csv") for name in ("train", "validation")]
    return pd.concat(splits, ignore_index=True)


def _yelp(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "yelp2018" / "train.parquet")


def _yelp_wide(folder: Path) -> pd.DataFrame:
    """Return all interactions of 6,000 random users, on most of the items."""
    return _of_random_users(_yelp(folder), 6_000)


def _yelp_core(folder: Path) -> pd.DataFrame:
    """Return the 4,000 most active users' interactions with the 4,000 most popular items."""
    pairs = _yelp(folder)
    for column in ("user_id", "item_id"):
        kept = pairs[column].value_counts().index[:4_000]
        pairs = pairs[pairs[column].isin(kept)]
    return pairs


def _tastes(_folder: Path) -> pd.DataFrame:
    """Draw items by popularity and by the inner product with a user's taste.

    4,000 users, 2,000 items, 40 interactions each, with times drawn at random.
    """
    rng = np.random.default_rng(_SEED)
    tastes, kinds = rng.normal(size=(4_000, 8)), rng.normal(size=(2_000, 8)) / 8**0.5
    scores = 2 * tastes @ kinds.T - np.log(np.arange(20, 2_020)) + rng.gumbel(size=(4_000, 2_000))
    items = np.argpartition(-scores, 40, axis=1)[:, :40]
    user = np.repeat(np.arange(4_000), 40)
    return _with_random_times(pd.DataFrame({"user_id": user, "item_id": items.ravel()}))


def _drift(_folder: Path) -> pd.DataFrame:
    """Draw items that come and go, for users of 50 groups, each with tastes of its own.

    3,000 users, 20,000 items, log-normal numbers of interactions with times; an item is at its most
    popular at a time of its own.
    """
    rng = np.random.default_rng(_SEED)
    n_users, n_items, n_groups = 3_000, 20_000, 50
    n_each = np.clip(np.rint(rng.lognormal(3.2, 0.8, n_users)), 5, 400).astype(np.int64)
    user = np.repeat(np.arange(n_users), n_each)
    start = rng.random(n_users) * 0.7
    time = start[user] + rng.random(len(user)) * 0.3
    group = rng.integers(0, n_groups, n_users)[user]
    log_weight = -0.9 * np.log(np.arange(10, n_items + 10))
    peak, taste = rng.random(n_items), rng.normal(0, 1.5, (n_groups, n_items))
    items = np.empty(len(user), dtype=np.int64)
    for rows in np.array_split(np.argsort(time), 400):
        now = log_weight - 4 * np.abs(peak - time[rows].mean())
        for one in np.unique(group[rows]):
            chosen = rows[group[rows] == one]
            noise = rng.gumbel(size=(len(chosen), n_items))
            items[chosen] = np.argmax(now + taste[one] + noise, axis=1)
    pairs = pd.DataFrame({"user_id": user, "item_id": items, "timestamp": (time * 1e8).astype(int)})
    return pairs.drop_duplicates(["user_id", "item_id"])


def _of_random_users(pairs: pd.DataFrame, n_users: int) -> pd.DataFrame:
    drawn = np.random.default_rng(_SEED).choice(pairs["user_id"].unique(), n_users, replace=False)
    return pairs[pairs["user_id"].isin(drawn)]


def _with_random_times(pairs: pd.DataFrame) -> pd.DataFrame:
    """Return the interactions with times, so that leave-one-out holds out random ones."""
    return pairs.assign(timestamp=np.random.default_rng(_SEED).permutation(len(pairs)))


_FULL_20 = {"protocol": "full", "k": [20, 10]}
_SAMPLED = {"protocol": "sampled", "k": [10]}
_RANDOM = {"split": "random"}
SHAPES = {
    "embedded": Shape(_embedded, {"data": {"split": "leave_one_out"}}),
    "embedded-temporal": Shape(
        _embedded, {"data": {"split": "temporal", "positive_threshold": 0.5}}
    ),
    "movielens-users": Shape(
        _movielens_users, {"data": {"split": "leave_one_out"}, "evaluation": _SAMPLED}
    ),
    "movielens-thin": Shape(_movielens_thin, {"data": _RANDOM}),
    "lastfm": Shape(_lastfm, {"data": _RANDOM, "evaluation": _FULL_20}),
    "yelp-wide": Shape(_yelp_wide, {"data": _RANDOM, "evaluation": _FULL_20}),
    "yelp-core": Shape(_yelp_core, {"data": _RANDOM, "evaluation": _FULL_20}),
    "tastes": Shape(_tastes, {"data": {"split": "leave_one_out"}, "evaluation": _SAMPLED}),
    "drift": Shape(_drift, {"data": {"split": "temporal"}}),
}
"""The data sets by name: small and dense, sparse and wide, with times and without, ranked among all
items and among candidates."""


def write_shape(name: str, public: Path, folder: Path) -> tuple[Path, Path]:
    """Write a data set, unless it is there, and return its file of interactions and its config."""
    shape = SHAPES[name]
    path, config = folder / "interactions.parquet", folder / "config.yaml"
    if not config.exists():
        folder.mkdir(parents=True, exist_ok=True)
        shape.read(public).reset_index(drop=True).to_parquet(path, index=False)
        data = {"source": str(path), **shape.settings["data"]}
        config.write_text(dump_yaml({**shape.settings, "data": data}), encoding="utf-8")
    return path, config
