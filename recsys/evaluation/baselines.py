"""Baselines: simple scorers that models are compared with, ranked by the same code.

Final training reports them beside the model. A model that does not beat popularity has learned
nothing about individual users.
"""

import warnings

import numpy as np
import torch
from torch import Tensor

from recsys.config.schema import Config
from recsys.data.interactions import Interactions
from recsys.errors import InputError
from recsys.evaluation.evaluate import evaluate
from recsys.kernels.arrays import IntArray
from recsys.kernels.ragged import expand
from recsys.kernels.tensors import as_tensor

EASE_L2 = 500.0
"""L2 penalty, not tuned: the order of magnitude that was best on each data set of Steck 2019."""

EASE_LIMIT = 12_000
"""Rows of the largest matrix that EASE inverts: 0.6 GB, and about a minute of one core."""

PAIR_ROWS = 256
"""Users whose pairs EASE scores at a time, because it computes their scores for all items."""


class Popularity:
    """Scorer of an item by a count of its positives, (n_items,), equal for all users."""

    def __init__(self, counts: IntArray) -> None:
        self.device = torch.device("cpu")
        self.counts = as_tensor(counts, "cpu").float()

    def score_all(self, user: Tensor) -> Tensor:
        """Return the scores (B, n_items) of all items for users (B,)."""
        return self.counts.repeat(len(user), 1)

    def score_pairs(self, user: Tensor, item: Tensor) -> Tensor:
        """Return the scores (B, n) of items (B, n)."""
        return self.counts[item]


def popularity_of(data: Interactions) -> Popularity:
    """Return the scorer of items by their training positives."""
    return Popularity(np.bincount(data.item, minlength=data.n_items))


class EASE:
    """Linear model from the items of a user to the score of each item, in closed form.

    X (n_users, n_items) has 1 at the training positives. With P = (X'X + l2 I)^-1, the weights are
    B = I - P diag(P)^-1, and the scores of a user with the row x of X are
    x B = x - (x P) / diag(P).

    With fewer users than items, the matrix A = (X X' + l2 I)^-1 of users gives the same by the
    Woodbury identity: X P = A X, and l2 P_jj = 1 - x_j' A x_j, where x_j is column j of X. Only the
    smaller of the two matrices is inverted. The row x of a user who is held out whole has 1 at the
    given positives, and is no row of X. By users, l2 x P = x - x X' A X.

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
        self.device, self.n_items, self.l2 = torch.device("cpu"), data.n_items, l2
        _, self.items, self.offsets = _items_by_user(data.histories())
        user, items, offsets = _items_by_user(data)
        self.rows = _sparse(user, items, data.n_users, data.n_items)  # X; `columns` is X'
        self.columns = _sparse(items, user, data.n_items, data.n_users)
        self.by_user, self.has_given = data.n_users < data.n_items, data.given is not None
        left, right = (self.rows, self.columns) if self.by_user else (self.columns, self.rows)
        gram = _product(left, right)
        gram.diagonal().add_(l2)
        # A (n_users, n_users) or P (n_items, n_items).
        self.inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram))
        if self.by_user:
            # x_j' A x_j is the sum of x_j' A at the users of item j, some users at a time.
            sums = torch.zeros(data.n_items)
            for first in range(0, data.n_users, PAIR_ROWS):
                last = min(first + PAIR_ROWS, data.n_users)
                own = slice(int(offsets[first]), int(offsets[last]))
                projected = self.columns @ self.inverse[:, first:last]  # (n_items, some users)
                sums.index_add_(0, items[own], projected[items[own], user[own] - first])
            self.diagonal = (1 - sums) / l2
        else:
            self.diagonal = self.inverse.diagonal().clone()

    def score_all(self, user: Tensor) -> Tensor:
        """Return the scores (B, n_items) of all items for users (B,)."""
        first = self.offsets[user]
        row, index = expand(first, self.offsets[user + 1] - first)
        x = torch.zeros(len(user), self.n_items)
        x[row, self.items[index]] = 1
        return x - self._project(user, x) / self.diagonal

    def _project(self, user: Tensor, x: Tensor) -> Tensor:
        """Return x P (B, n_items) for users (B,) and their rows x (B, n_items)."""
        if not self.by_user:
            return x @ self.inverse
        if not self.has_given:
            return (self.columns @ self.inverse[:, user]).T  # A X, and A is symmetric
        return (x - (self.columns @ (self.inverse @ (self.rows @ x.T))).T) / self.l2

    def score_pairs(self, user: Tensor, item: Tensor) -> Tensor:
        """Return the scores (B, n) of items (B, n) for users (B,)."""
        blocks = [slice(start, start + PAIR_ROWS) for start in range(0, len(user), PAIR_ROWS)]
        return torch.cat([self.score_all(user[rows]).gather(1, item[rows]) for rows in blocks])


def score_baselines(data: Interactions, config: Config) -> dict[str, dict[str, float | str]]:
    """Return each baseline's metrics on the held-out split, or {"skipped": reason}."""
    scores: dict[str, dict[str, float | str]] = {
        "popularity": {**evaluate(popularity_of(data), data, config)}
    }
    if data.n_recent is not None:
        recent = Popularity(data.n_recent)
        scores["popularity_recent"] = {**evaluate(recent, data, config)}
    try:
        scores["ease"] = {**evaluate(EASE(data, EASE_L2), data, config)}
    except InputError as error:
        scores["ease"] = {"skipped": str(error)}
    return scores


def _items_by_user(data: Interactions) -> tuple[Tensor, Tensor, Tensor]:
    """Return users (n,) and items (n,) of the positives, and each user's first (n_users + 1,)."""
    user, item = (as_tensor(ids, "cpu").long() for ids in (data.user, data.item))
    return user, item, torch.searchsorted(user, torch.arange(data.n_users + 1))


def _sparse(row: Tensor, column: Tensor, n_rows: int, n_columns: int) -> Tensor:
    """Return the sparse matrix (n_rows, n_columns) with 1 at each pair."""
    index = torch.stack([row, column])
    return torch.sparse_coo_tensor(
        index, torch.ones(len(row)), (n_rows, n_columns), check_invariants=False
    ).coalesce()


def _product(left: Tensor, right: Tensor) -> Tensor:
    """Return the dense product of two sparse matrices."""
    with warnings.catch_warnings():
        # torch multiplies in CSR form, and warns once that its support is in beta.
        warnings.filterwarnings("ignore", message="Sparse")
        return (left @ right).to_dense()
