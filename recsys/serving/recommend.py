"""Recommendations from a saved model: the best unseen items of users, by the data's own ids.

The end of the flow; the recommend command and MLflow's served models use it.
"""

import difflib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recsys.errors import Argument, InputError
from recsys.evaluation.scorers import ModelScorer
from recsys.evaluation.top_items import top_items
from recsys.kernels.arrays import IntArray
from recsys.serving.saved_model import SavedModel

_NAMED_USERS = 5


def recommend(saved: SavedModel, user_ids: Sequence[object], k: int) -> pa.Table:
    """Return the k best unseen items of users by their own ids.

    Returns:
        A table of user_id, rank (from 1), item_id, score and title.

    Raises:
        InputError: if a user is unknown or untrained; if k is not from 1 to the number of items.
    """
    return recommend_to(saved, find_users(saved, user_ids), k)


def recommend_to(saved: SavedModel, users: IntArray, k: int) -> pa.Table:
    """Return the same table as `recommend` for users by contiguous id, (n,) int64.

    Raises:
        InputError: if k is not from 1 to the number of items.
    """
    n_items = len(saved.item_ids)
    if not 1 <= k <= n_items:
        raise InputError(
            Argument("k"),
            f"must be from 1 to the number of items, {n_items}",
            k,
            "Raise it." if k < 1 else "Lower it.",
        )
    best = list(top_items(ModelScorer(saved.model, n_items), users, saved.seen, k))
    # Fewer than k where fewer items are unseen.
    counts = np.array([len(items) for _, items, _ in best], dtype=np.int64)
    user = np.repeat(users, counts)  # (n_rows,)
    item = _joined([items for _, items, _ in best], np.int64)  # (n_rows,)
    return pa.table(
        {
            "user_id": saved.user_ids.take(pa.array(user)),
            "rank": _joined([np.arange(1, count + 1) for count in counts], np.int64),
            "item_id": saved.item_ids.take(pa.array(item)),
            "score": _joined([scores for _, _, scores in best], np.float32),
            "title": saved.titles.take(pa.array(item)),
        }
    )


def find_users(saved: SavedModel, user_ids: Sequence[object]) -> IntArray:
    """Return the contiguous ids (n,) int64 of users by their own ids, each user once.

    Integer ids may be given as text.

    Raises:
        InputError: if users are unknown, or had no positive in training; it names some of them.
    """
    user_of = {str(user_id): user for user, user_id in enumerate(saved.user_ids.to_pylist())}
    wanted = list(dict.fromkeys(str(user_id) for user_id in user_ids))
    unknown = [user_id for user_id in wanted if user_id not in user_of]
    if unknown:
        near = difflib.get_close_matches(unknown[0], user_of, n=1)
        remedy = (
            f"The nearest known id is {near[0]}."
            if near
            else f"The model knows {len(user_of)} users."
        )
        raise InputError(
            Argument("user_id"), "must be a user of the training data", _named(unknown), remedy
        )
    users = np.array([user_of[user_id] for user_id in wanted], dtype=np.int64)
    untrained = [
        user_id
        for user_id, is_trained in zip(wanted, saved.is_trained[users], strict=True)
        if not is_trained
    ]
    if untrained:
        raise InputError(
            Argument("user_id"),
            "must have a positive in the training data",
            found=f"{_named(untrained)} has none",
            remedy="Train a model on data with one, or omit the user.",
        )
    return users


def _joined(arrays: Sequence[npt.NDArray[Any]], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Return the arrays one after another, an empty one if there are none."""
    return np.concatenate([np.empty(0, dtype), *arrays])


def _named(user_ids: Sequence[str]) -> str:
    """Return the first few ids, and the number of the others."""
    n_more = len(user_ids) - _NAMED_USERS
    return ", ".join(user_ids[:_NAMED_USERS]) + (f" and {n_more} more" if n_more > 0 else "")
