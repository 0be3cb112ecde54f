"""Alternating least squares: squared errors over all pairs, each side solved given the other.

`fit` calls it if `training.loss` is squared, for an inner product s = <u, i>. The loss is

    sum over positives (1 - s)^2 + a * sum over all pairs but low ratings s^2
        + b * sum over users (n_u + a * n_items) ||u||^2
        + b * sum over items (n_i + a * n_users) ||i||^2

where n_u and n_i count the positives of a user and of an item, and n_users the users who are not
held out whole. The weight a is such that all pairs of the second sum together weigh as much as
`n_negatives` negatives for each positive. With b = l2 / (1 + n_negatives), `l2` is the penalty of a
positive with its negatives, as in every other loss. Given the items, a user's vector is the
solution of d linear equations, and there is no step size to tune. Biases stay 0.

With `training.recency_half_life` there are two vectors for each user. The first has equal weights:
the items are solved given these, and so are as without a half-life. The second, which the model
has, is solved given the items, with the weights of the user's positives (`recency`) in the loss.
There are two as well if whole users are held out: the first has 0 for them, so that the items are
solved without them, and the second is solved from their given interactions.

Source: Hu et al. 2008, ICDM, eq. 3 to 5; Rendle et al. 2022, arXiv:2110.14037, sec. 3 (the weights
and the regularisation).
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recsys.config.schema import Config
from recsys.data.interactions import Interactions
from recsys.kernels.arrays import IntArray
from recsys.kernels.tensors import as_tensor
from recsys.training.checkpoint import TrainingState
from recsys.training.grouped_pairs import GroupedPairs, group_pairs
from recsys.training.recency import recency_weights
from recsys.training.row_solver import COLUMNS, MAX_VALUES, GivenSide, RowSolver, blocks_of, give


class LeastSquares:
    """Trainer of `state` by least squares. `n_segments`: segments of an epoch.

    An epoch solves all items, then all users; before the first epoch, the users are solved for
    random items. A segment solves some of the rows.
    """

    def __init__(
        self,
        config: Config,
        data: Interactions,
        state: TrainingState,
        device: str | torch.device,
        *,
        n_segments: int,
    ) -> None:
        self.n_segments = n_segments
        self._n_positives, self._n_pairs = len(data.user), data.n_pairs
        self._users, self._items = (
            state.model.get_parameter(f"{side}.weight").data for side in ("users", "items")
        )
        self._solver = RowSolver.of(config, self._n_positives, self._n_pairs)
        histories = data.histories()
        recency = recency_weights(config.training, histories)
        self._by_user = by_user = _by_user(histories, recency, device)
        self._by_item = _by_item(data, device)
        self._equal_users = self._users
        self._of_equal_users = self._of_users = _steps(self._users, self._items, by_user)
        if recency is not None or data.given is not None:
            # The first moment, which no gradient needs here, is a part of the saved state.
            users = state.model.get_parameter("users.weight")
            self._equal_users = state.adam.moments[users]["exp_avg"]
            of_training = by_user if data.given is None else _by_user(data, None, device)
            self._by_user = of_training.unweighted()
            self._of_equal_users = _steps(self._equal_users, self._items, self._by_user)
            self._of_users = self._of_equal_users + self._of_users
        self._of_items = _steps(self._items, self._equal_users, self._by_item)
        self._positive_user, self._positive_item = (
            as_tensor(ids, device) for ids in (data.user, data.item)
        )

    def train(self, epoch: int, segment: int) -> float:
        """Solve the rows of a segment of an epoch, both counted from 1.

        Returns:
            The loss after it, times the number of positives that the segment counts for.

        Raises:
            DivergenceError: if the equations have no single solution.
        """
        if (epoch, segment) == (1, 1):
            self._equal_users.copy_(self._users)
        before = self._of_equal_users if epoch == 1 else []
        steps = before + self._of_items + self._of_users
        begin, end = (number * len(steps) // self.n_segments for number in (segment - 1, segment))
        given: GivenSide | None = None
        for number in range(begin, end):
            rows, others, pairs, block = steps[number]
            if given is None or steps[number - 1][1] is not others:
                given = give(others, COLUMNS)
            self._solver.solve(rows, given, pairs, block)
        return self._loss() * (self.n_rows(segment) - self.n_rows(segment - 1))

    def n_rows(self, n_segments: int) -> int:
        """Return the number of positives that the first `n_segments` segments count for."""
        return n_segments * self._n_positives // self.n_segments

    def n_samples(self, n_segments: int) -> int:
        """Return the number of pairs that the first `n_segments` segments count for."""
        return n_segments * self._n_pairs // self.n_segments

    def _loss(self) -> float:
        """Return the mean loss of a positive, with low ratings counted as other pairs.

        It is that of the users that the items are solved given.
        """
        users, items, weight = self._equal_users, self._items, self._solver.weight
        of_positives = torch.zeros((), dtype=torch.float64, device=users.device)
        size = max(1, MAX_VALUES // users.shape[1])
        for first in range(0, self._n_positives, size):
            some = slice(first, first + size)
            user = users.index_select(0, self._positive_user[some])
            scores = (user * items.index_select(0, self._positive_item[some])).sum(1)
            of_positives += (1 - scores).square().sum()
        of_all = weight * ((users.T @ users) * (items.T @ items)).sum()
        penalty = self._solver.l2 * sum(
            (rows.square().sum(1) * (pairs.n_positives + weight * pairs.n_others)).sum()
            for rows, pairs in ((users, self._by_user), (items, self._by_item))
        )
        return float(of_positives + of_all + penalty) / self._n_positives


def _steps(
    rows: Tensor, others: Tensor, pairs: GroupedPairs
) -> list[tuple[Tensor, Tensor, GroupedPairs, Tensor]]:
    """Return the steps that solve `rows` (n, d) given `others` (m, d), one block of rows each."""
    dim = rows.shape[1]
    return [(rows, others, pairs, block) for block in blocks_of(pairs, dim, min(COLUMNS, dim))]


def fold_in(config: Config, items: Tensor, data: Interactions, solver: RowSolver) -> Tensor:
    """Return the vectors (n_users, d) of the users of `data`, given the items' (n_items, d).

    They are 0 for a user without a positive. `solver`: that of the training of the items. The users
    need not be those of that training.

    Raises:
        DivergenceError: if the equations have no single solution.
    """
    dim = items.shape[1]
    users, given = items.new_zeros(data.n_users, dim), give(items, dim)
    pairs = _by_user(data, recency_weights(config.training, data), items.device)
    for block in blocks_of(pairs, dim, dim):
        liking = block[pairs.n_positives[block] > 0]
        if len(liking):
            solver.solve(users, given, pairs, liking)
    return users


def _by_user(
    data: Interactions, weights: npt.NDArray[np.float32] | None, device: str | torch.device
) -> GroupedPairs:
    """Return the interactions of each user. `weights` (P,): of the positives, all 1 if None."""
    user, item = _all_pairs(data)
    weights = np.ones(len(data.user), dtype=np.float32) if weights is None else weights
    return group_pairs(user, item, (data.n_users, data.n_items), weights, device)


def _by_item(data: Interactions, device: str | torch.device) -> GroupedPairs:
    """Return the interactions of each item."""
    user, item = _all_pairs(data)
    equal = np.ones(len(data.user), dtype=np.float32)
    return group_pairs(item, user, (data.n_items, data.n_trained_users), equal, device)


def _all_pairs(data: Interactions) -> tuple[IntArray, IntArray]:
    """Return users and items (N,), those of the positives first."""
    user = np.concatenate([data.user, data.low_user])
    return user, np.concatenate([data.item, data.low_item])
