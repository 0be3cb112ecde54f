"""Folding in of users by their histories, whether or not training has seen them.

Least squares solves a user's vector from the history alone, given the items. A model trained by
gradient descent has vectors of its own users, and no equations for those of others.
"""

import dataclasses

import numpy as np
import pyarrow as pa
import torch

from recsys.config.components import LOSSES
from recsys.data.interactions import Interactions
from recsys.errors import Argument, DivergenceError, InputError
from recsys.models import build_model
from recsys.serving.saved_model import SavedModel
from recsys.training.least_squares import fold_in
from recsys.training.row_solver import RowSolver


def with_users(saved: SavedModel, user_ids: pa.Array, histories: Interactions) -> SavedModel:
    """Return the model with other users, solved from their histories, in place of its own.

    Args:
        saved: the model.
        user_ids: the users' own ids, (n_users,).
        histories: their interactions with the model's items.

    Raises:
        InputError: if the model cannot fold in users; if no user has a positive that says anything.
    """
    n_positives, _ = require_fold_in(saved)
    items = saved.model.get_parameter("items.weight").detach()
    # An item without a positive in training has the vector 0.
    says_something = items.any(1).numpy()[histories.item]
    is_solved = np.bincount(histories.user[says_something], minlength=histories.n_users) > 0
    if not is_solved.any():
        raise InputError(
            Argument("history"),
            "must have a positive with an item of the training data",
            "none",
            "Check the item ids and the ratings.",
        )
    n_pairs = len(saved.user_ids) * len(saved.item_ids)
    solver = RowSolver.of(saved.config, n_positives, n_pairs)
    model = build_model(saved.config.model, len(user_ids), len(items), torch.Generator())
    model.get_parameter("items.weight").data = items
    try:
        users = fold_in(saved.config, items, histories, solver)
    except DivergenceError as error:
        raise InputError(
            Argument("model"),
            "must have equations with a single solution for each history",
            "others",
            "Train it with a greater training.l2.",
        ) from error
    model.get_parameter("users.weight").data = users
    return dataclasses.replace(
        saved,
        model=model.eval(),
        user_ids=user_ids,
        seen=histories.seen,
        is_trained=is_solved,
    )


def require_fold_in(saved: SavedModel) -> tuple[int, float | None]:
    """Return the number of training positives of a model, and the least rating of a positive.

    Raises:
        InputError: if the model cannot fold in users.
    """
    loss = saved.config.training.loss
    if saved.members or LOSSES[loss].solver != "least_squares":
        raise InputError(
            Argument("model"),
            "must be trained by least squares to fold in users",
            "an ensemble" if saved.members else f"{saved.config.model.name} with the loss {loss}",
            "Train a config with model.name: inner_product and training.loss: squared.",
        )
    n_positives = saved.metrics.get("n_positives")
    if not isinstance(n_positives, int):
        raise InputError(
            Argument("model"),
            "must state its number of training positives",
            "a model of an earlier version",
            "Train it again.",
        )
    return n_positives, saved.metrics.get("positive_threshold")
