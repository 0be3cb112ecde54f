"""Folding in of users by their histories, whether or not training has seen them.

Least squares solves a user's vector from the history alone, given the items. A model trained by
gradient descent has a table of users and no way to add one.
"""

import dataclasses

import numpy as np
import pyarrow as pa
import torch

from recsys.config.components import LOSSES
from recsys.data.interactions import Interactions
from recsys.errors import Argument, InputError
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
        InputError: if the model cannot fold in users; if no user has a positive.
    """
    _require_fold_in(saved)
    is_solved = np.bincount(histories.user, minlength=histories.n_users) > 0
    if not is_solved.any():
        raise InputError(
            Argument("history"),
            "must have a positive with an item of the training data",
            "none",
            "Check the item ids and data.positive_threshold.",
        )
    items = saved.model.get_parameter("items.weight").detach()
    n_pairs = len(saved.user_ids) * len(saved.item_ids)
    solver = RowSolver.of(saved.config, saved.metrics["n_positives"], n_pairs)
    model = build_model(saved.config.model, len(user_ids), len(items), torch.Generator())
    model.get_parameter("items.weight").data = items
    model.get_parameter("users.weight").data = fold_in(saved.config, items, histories, solver)
    return dataclasses.replace(
        saved,
        model=model.eval(),
        user_ids=user_ids,
        seen=histories.seen,
        is_trained=is_solved,
    )


def _require_fold_in(saved: SavedModel) -> None:
    """Check that the model can fold in users.

    Raises:
        InputError: if it cannot.
    """
    loss = saved.config.training.loss
    if saved.members or LOSSES[loss].solver != "least_squares":
        raise InputError(
            Argument("model"),
            "must be trained by least squares to fold in users",
            "an ensemble" if saved.members else f"{saved.config.model.name} with the loss {loss}",
            "Train a config with training.loss: squared.",
        )
    if "n_positives" not in saved.metrics:
        raise InputError(
            Argument("model"),
            "must state its number of training positives",
            "a model of an earlier version",
            "Train it again.",
        )
