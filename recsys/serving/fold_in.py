"""Folding in of users by their histories, whether or not training has seen them.

Least squares solves a user's vector from the history alone, given the items, and a model that reads
histories encodes it. No other model can fold in users.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from recsys.config.variants import FOLDING_IN
from recsys.data.history import count_later
from recsys.data.interactions import Interactions
from recsys.data.negatives import index_pairs
from recsys.errors import Argument, DivergenceError, InputError
from recsys.models import Model, build_model
from recsys.models.histories import HistoryModel
from recsys.serving.saved_model import SavedModel
from recsys.training.latents import store_latents
from recsys.training.least_squares import fold_in
from recsys.training.row_solver import RowSolver

_N_PAIRS = "n_pairs"
"""Key among the metrics: training's pairs of a user and an item."""


def with_histories(
    saved: SavedModel, histories: Sequence[Sequence[object]], user_ids: pa.Array
) -> SavedModel:
    """Return the model with other users, known by the items that they like, in place of its own.

    Args:
        saved: the model.
        histories: each user's items by their own ids, the earliest first. Of an item's several
            places the last counts. Items that training has not seen are ignored.
        user_ids: the users' ids, (n_users,).

    Raises:
        InputError: as `with_users`.
    """
    return with_users(saved, user_ids, _likes(histories, saved.item_ids))


def with_users(saved: SavedModel, user_ids: pa.Array, histories: Interactions) -> SavedModel:
    """Return the model with other users, computed from their histories, in place of its own.

    Args:
        saved: the model.
        user_ids: the users' own ids, (n_users,).
        histories: their interactions with the model's items.

    Raises:
        InputError: if the model cannot fold in users.
    """
    require_fold_in(saved)
    if isinstance(saved.model, HistoryModel):
        items, build = saved.model.input_rows().weight, _encoded
    else:
        items, build = saved.model.get_parameter("items.weight"), _solved
    # An item without a positive in training has the vector 0.
    says_something = items.detach().any(1).numpy()[histories.item]
    is_known = np.bincount(histories.user[says_something], minlength=histories.n_users) > 0
    return dataclasses.replace(
        saved,
        model=build(saved, histories).eval(),
        user_ids=user_ids,
        seen=histories.seen,
        is_trained=is_known,
        metrics={**saved.metrics, _N_PAIRS: _n_pairs(saved)},
    )


def _likes(histories: Sequence[Sequence[object]], item_ids: pa.Array) -> Interactions:
    """Return histories as interactions, all of them positive."""
    n_users, n_items = len(histories), len(item_ids)
    own_ids = (item_id for items in histories for item_id in items)
    texts = [None if item_id is None else str(item_id) for item_id in own_ids]
    found = pc.index_in(pa.array(texts, pa.string()), value_set=pc.cast(item_ids, pa.string()))
    item = pc.fill_null(found, -1).to_numpy()
    user = np.repeat(np.arange(n_users, dtype=np.int32), [len(items) for items in histories])
    pair = (user * np.int64(n_items) + item)[item >= 0]
    # The first of a pair from the end is its last; `np.unique` sorts the pairs.
    pair, from_end = np.unique(pair[::-1], return_index=True)
    user, item = (ids.astype(np.int32) for ids in np.divmod(pair, n_items))
    nothing = np.empty(0, dtype=np.int32)
    return Interactions(
        n_users=n_users,
        n_items=n_items,
        user=user,
        item=item,
        negatives=None,
        low_user=nothing,
        low_item=nothing,
        seen=index_pairs(user, item, n_users, n_items),
        held_out=None,
        n_later=count_later(user, -from_end),
    )


def _encoded(saved: SavedModel, histories: Interactions) -> Model:
    n_users, n_items = histories.n_users, histories.n_items
    model = build_model(saved.config.model, n_users, n_items, torch.Generator())
    assert isinstance(model, HistoryModel)
    model.load_state_dict({**saved.model.state_dict(), "latents": model.latents})
    store_latents(model, saved.config.training, histories)
    return model


def _solved(saved: SavedModel, histories: Interactions) -> Model:
    items = saved.model.get_parameter("items.weight").detach()
    solver = RowSolver.of(saved.config, saved.metrics["n_positives"], _n_pairs(saved))
    model = build_model(saved.config.model, histories.n_users, len(items), torch.Generator())
    model.get_parameter("items.weight").data = items
    try:
        users = fold_in(saved.config, items, histories, solver)
    except DivergenceError as error:
        raise InputError(
            Argument("model"),
            "must have equations with a single solution for each history",
            "none for some",
            "Train it with a greater training.l2.",
        ) from error
    model.get_parameter("users.weight").data = users
    return model


def _n_pairs(saved: SavedModel) -> int:
    """Return the number of pairs of a user and an item in training.

    Models of earlier versions do not state it: they were trained on all users.
    """
    n_pairs: int = saved.metrics.get(_N_PAIRS, len(saved.user_ids) * len(saved.item_ids))
    return n_pairs


def require_fold_in(saved: SavedModel) -> None:
    """Check that a model can fold in users.

    Raises:
        InputError: if it cannot.
    """
    if saved.members or not saved.config.variant.folds_in_users:
        raise InputError(
            Argument("model"),
            "must read histories, or be trained by least squares, to fold in users",
            "an ensemble" if saved.members else str(saved.config.variant),
            f"Train a config with {FOLDING_IN}.",
        )
    if not isinstance(saved.metrics.get("n_positives"), int):
        raise InputError(
            Argument("model"),
            "must state its number of training positives",
            "a model of an earlier version",
            "Train it again.",
        )
