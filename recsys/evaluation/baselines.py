"""Scorers that are not neural, for a model to be compared with; ranked by the same code as the models.

The final training reports them beside the model. A model that does not beat popularity has learned nothing about anybody.
"""

import warnings

import numpy as np
import torch
from torch import Tensor

from recsys.config.schema import Config
from recsys.data.interactions import Interactions
from recsys.errors import InputError
from recsys.evaluation.evaluate import evaluate
from recsys.kernels.ragged import expand
from recsys.kernels.tensors import as_tensor

EASE_L2 = 500.0
"""The order of magnitude that Steck 2019 found best on each of his data sets, fitted to none."""

EASE_LIMIT = 12_000
"""Side of the largest matrix that EASE inverts here: 0.6 GB, and about a minute of one core."""

PAIR_ROWS = 256
"""Users that EASE scores pairs of at a time."""


class Popularity:
    """Scores an item by its training positives, the same for all users."""

    def __init__(self, data: Interactions) -> None:
        self.device = torch.device("cpu")
        self.counts = torch.from_numpy(np.bincount(data.item, minlength=data.n_items)).float()

    def score_all(self, user: Tensor) -> Tensor:
        """Users (B,) -> scores (B, n_items)."""
        return self.counts.repeat(len(user), 1)

    def score_pairs(self, user: Tensor, item: Tensor) -> Tensor:
        """Items (B, n) -> scores (B, n)."""
        return self.counts[item]


class EASE:
    """A linear model from all of a user's items to each item, in closed form: B = I - P diag(P)^-1, P = (X'X + l2 I)^-1.

    A user's scores are x B = x - (x P) / diag(P), x (n_items,) its row of training positives X.
    With fewer users than items the same comes from a matrix of users: X P = A X and l2 P_jj = 1 - x_j' A x_j with
    A = (X X' + l2 I)^-1, by the Woodbury identity. Either way only the smaller of the two matrices is inverted.

    Source: Steck 2019, arXiv:1905.03375, eq. 8.

    Raises:
        InputError: if users and items both exceed `EASE_LIMIT`.
    """

    def __init__(self, data: Interactions, l2: float) -> None:
        side = min(data.n_users, data.n_items)
        if side > EASE_LIMIT:
            raise InputError(
                "EASE",
                f"must have at most {EASE_LIMIT} users or items",
                side,
                "Compare with popularity alone.",
            )
        self.device, self.n_items = torch.device("cpu"), data.n_items
        user, self.items = as_tensor(data.user, "cpu").long(), as_tensor(data.item, "cpu").long()
        self.offsets = torch.searchsorted(user, torch.arange(data.n_users + 1))
        rows = _sparse(user, self.items, data.n_users, data.n_items)
        self.columns = _sparse(self.items, user, data.n_items, data.n_users)
        self.by_user = data.n_users < data.n_items
        gram = _product(rows, self.columns) if self.by_user else _product(self.columns, rows)
        gram.diagonal().add_(l2)
        self.inverse = torch.cholesky_inverse(
            torch.linalg.cholesky(gram)
        )  # A (n_users, n_users) or P (n_items, n_items)
        if self.by_user:
            explained = (self.columns @ self.inverse)[
                self.items, user
            ]  # (n_positives,): x_j' A at each user of item j
            self.diagonal = (
                1 - torch.zeros(data.n_items).index_add_(0, self.items, explained)
            ) / l2
        else:
            self.diagonal = self.inverse.diagonal().clone()

    def score_all(self, user: Tensor) -> Tensor:
        """Users (B,) -> scores (B, n_items)."""
        first = self.offsets[user]
        row, index = expand(first, self.offsets[user + 1] - first)
        own = torch.zeros(len(user), self.n_items)
        own[row, self.items[index]] = 1
        projected = (self.columns @ self.inverse[:, user]).T if self.by_user else own @ self.inverse
        return own - projected / self.diagonal

    def score_pairs(self, user: Tensor, item: Tensor) -> Tensor:
        """Users (B,), items (B, n) -> scores (B, n)."""
        # Some rows at a time: each takes a score for every item on the way.
        parts = [slice(first, first + PAIR_ROWS) for first in range(0, len(user), PAIR_ROWS)]
        return torch.cat([self.score_all(user[part]).gather(1, item[part]) for part in parts])


def score_baselines(data: Interactions, config: Config) -> dict[str, dict[str, float | str]]:
    """Each baseline's metrics on the held-out part; {"skipped": reason} where one cannot be had."""
    scores: dict[str, dict[str, float | str]] = {
        "popularity": {**evaluate(Popularity(data), data, config)}
    }
    try:
        scores["ease"] = {**evaluate(EASE(data, EASE_L2), data, config)}
    except InputError as error:
        scores["ease"] = {"skipped": str(error)}
    return scores


def _sparse(row: Tensor, column: Tensor, n_rows: int, n_columns: int) -> Tensor:
    index = torch.stack([row, column])
    return torch.sparse_coo_tensor(
        index, torch.ones(len(row)), (n_rows, n_columns), check_invariants=False
    ).coalesce()


def _product(one: Tensor, other: Tensor) -> Tensor:
    """The dense product of two sparse matrices."""
    with warnings.catch_warnings():
        # torch multiplies through its CSR form and says at the first use that this is in beta.
        warnings.filterwarnings("ignore", message="Sparse")
        return (one @ other).to_dense()
