"""Alternating least squares: squared errors over all pairs, each side solved given the other.

`fit` calls it if `training.loss` is squared, for an inner product s = <u, i>. The loss is

    sum over positives (1 - s)^2 + a * sum over all pairs but low ratings s^2
        + b * sum over users (n_u + a * n_items) ||u||^2
        + b * sum over items (n_i + a * n_users) ||i||^2

where n_u and n_i count the positives of a user and of an item. The weight a is such that all pairs
of the second sum together weigh as much as `n_negatives` negatives for each positive. With
b = l2 / (1 + n_negatives), `l2` is the penalty of a positive with its negatives, as in every other
loss. Given the items, a user's vector is the solution of d linear equations, and there is no step
size to tune. A row with few interactions needs only as many equations as it has interactions. The
other rows, if wide, are solved `COLUMNS` columns at a time, each given the others. Biases stay 0.

With `training.recency_half_life` there are two vectors for each user. The first has equal weights:
the items are solved given these, and so are as without a half-life. The second, which the model
has, is solved given the items, with the weights of the user's positives (`recency`) in the loss.

Source: Hu et al. 2008, ICDM, eq. 3 to 5; Rendle et al. 2022, arXiv:2110.14037, sec. 3 (the weights
and the regularisation); Rendle et al. 2021, arXiv:2110.14044, sec. 4 (blocks of columns).
"""

import math

import numpy as np
import torch
from torch import Tensor

from recsys.config.schema import Config
from recsys.data.interactions import Interactions
from recsys.kernels.tensors import as_tensor
from recsys.training.checkpoint import TrainingState
from recsys.training.given_side import GivenSide, give, without_single_solution
from recsys.training.grouped_pairs import GroupedPairs, group_pairs
from recsys.training.recency import recency_weights

_ROUNDING = 1e-6
"""Ratio of the least to the greatest coefficient below which equations count as singular."""
COLUMNS = 64
"""Columns that are solved at a time: the work grows with the width, not with its square."""
SHORT_SHARE = 0.5
"""Largest number of interactions of a short row, as a share of the width. A short row has one
equation for each interaction."""
MAX_VALUES = 1 << 21
"""Values of the vectors or of the equations that are solved at a time: 8 MB."""


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
        n_users, n_items, n_negatives = data.n_users, data.n_items, config.training.n_negatives
        self.n_segments = n_segments
        self._n_positives, self._n_pairs = len(data.user), n_users * n_items
        self._users, self._items = (
            state.model.get_parameter(f"{side}.weight").data for side in ("users", "items")
        )
        self._weight = n_negatives * len(data.user) / self._n_pairs
        self._l2 = config.training.l2 / (1 + n_negatives)
        user = np.concatenate([data.user, data.low_user])
        item = np.concatenate([data.item, data.low_item])
        equal = np.ones(len(data.user), dtype=np.float32)
        recency = recency_weights(config.training, data)
        weights = equal if recency is None else recency
        self._by_user = group_pairs(user, item, (n_users, n_items), weights, device)
        self._by_item = group_pairs(item, user, (n_items, n_users), equal, device)
        self._equal_users = self._users
        self._of_users = _steps(self._users, self._items, self._by_user)
        if recency is not None:
            # The first moment, which no gradient needs here, is a part of the saved state.
            users = state.model.get_parameter("users.weight")
            self._equal_users = state.adam.moments[users]["exp_avg"]
            by_user = self._by_user.unweighted()
            self._of_users = [*_steps(self._equal_users, self._items, by_user), *self._of_users]
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
        steps = (self._of_users if epoch == 1 else []) + self._of_items + self._of_users
        begin, end = (number * len(steps) // self.n_segments for number in (segment - 1, segment))
        given: GivenSide | None = None
        for number in range(begin, end):
            rows, others, pairs, block = steps[number]
            if given is None or steps[number - 1][0] is not rows:
                given = give(others, COLUMNS)
            is_short = int(pairs.counts[block].max()) <= longest_short(rows.shape[1])
            solve = self._solve_short if is_short else self._solve
            solve(rows, given, pairs, block)
        return self._loss() * (self.n_rows(segment) - self.n_rows(segment - 1))

    def n_rows(self, n_segments: int) -> int:
        """Return the number of positives that the first `n_segments` segments count for."""
        return n_segments * self._n_positives // self.n_segments

    def n_samples(self, n_segments: int) -> int:
        """Return the number of pairs that the first `n_segments` segments count for."""
        return n_segments * self._n_pairs // self.n_segments

    def _solve(self, rows: Tensor, given: GivenSide, pairs: GroupedPairs, block: Tensor) -> None:
        """Solve the `block` (R,) of `rows` (n, d) given the other side, some columns at a time.

        Raises:
            DivergenceError: if the equations have no single solution.
        """
        l2 = (self._l2 * (pairs.n_positives[block] + self._weight * pairs.n_others)).unsqueeze(1)
        own, chunks = rows[block], list(pairs.of(block, MAX_VALUES // given.width))
        scores = [torch.zeros_like(share) for _, share in chunks]  # (R, w) each
        if len(given.slices) == 1:
            own.zero_()  # the solution does not depend on the old values
        else:
            for columns, vectors in given.slices:
                _add_scores(scores, chunks, vectors, own[:, columns])
        for columns, vectors in given.slices:
            left = (self._weight * given.gram[columns, columns]).repeat(len(block), 1, 1)
            right = -self._weight * (own @ given.gram[:, columns]) - l2 * own[:, columns]
            for (other, share), score in zip(chunks, scores, strict=True):
                some = vectors[other]  # (R, w, c)
                weights = torch.where(share > 0, share, share * self._weight)
                left.baddbmm_((some * weights.unsqueeze(2)).transpose(1, 2), some)
                right += torch.bmm(
                    (share.clamp(min=0) - weights * score).unsqueeze(1), some
                ).squeeze(1)
            left.diagonal(dim1=1, dim2=2).add_(l2)
            factor, info = torch.linalg.cholesky_ex(left)
            if bool(info.any()):
                raise without_single_solution()
            change = torch.cholesky_solve(right.unsqueeze(2), factor).squeeze(2)
            own[:, columns] += change
            if columns.stop < own.shape[1]:
                _add_scores(scores, chunks, vectors, change)
        rows[block] = own

    def _solve_short(
        self, rows: Tensor, given: GivenSide, pairs: GroupedPairs, block: Tensor
    ) -> None:
        """Solve the `block` (R,) of `rows` (n, d), which have few interactions.

        The equations of a row are (D + V' C V) x = V' p, with D diagonal in the basis of the
        eigenvectors of the gram matrix, V (w, d) the vectors of its interactions in that basis, C
        their weights, and p the weight of a positive and 0 for a low rating. So x = D^-1 V' z with
        (1 + C V D^-1 V') z = p.

        Raises:
            DivergenceError: if the equations have no single solution.
        """
        l2 = (self._l2 * (pairs.n_positives[block] + self._weight * pairs.n_others)).unsqueeze(1)
        eigenvalues, basis, rotated = given.spectrum
        diagonal = self._weight * eigenvalues + l2  # (R, d)
        if not bool((diagonal.amin(1) > _ROUNDING * diagonal.amax(1)).all()):  # or it is NaN
            raise without_single_solution()
        other, share = pairs.padded(block)  # (R, w)
        vectors = rotated[other]  # (R, w, d)
        scaled = vectors / diagonal.unsqueeze(1)
        left = torch.bmm(scaled, vectors.transpose(1, 2))
        left *= torch.where(share > 0, share, share * self._weight).unsqueeze(2)
        left.diagonal(dim1=1, dim2=2).add_(1)
        solution, info = torch.linalg.solve_ex(left, share.clamp(min=0).unsqueeze(2))
        if bool(info.any()):
            raise without_single_solution()
        rows[block] = torch.bmm(scaled.transpose(1, 2), solution).squeeze(2) @ basis.T

    def _loss(self) -> float:
        """Return the mean loss of a positive, with low ratings counted as other pairs.

        With weights by recency, it is that of the users without weights.
        """
        users, items = self._equal_users, self._items
        of_positives = torch.zeros((), dtype=torch.float64, device=users.device)
        for first in range(0, self._n_positives, max(1, MAX_VALUES // users.shape[1])):
            some = slice(first, first + max(1, MAX_VALUES // users.shape[1]))
            scores = (users[self._positive_user[some]] * items[self._positive_item[some]]).sum(1)
            of_positives += (1 - scores).square().sum()
        of_all = self._weight * ((users.T @ users) * (items.T @ items)).sum()
        penalty = self._l2 * sum(
            (rows.square().sum(1) * (pairs.n_positives + self._weight * pairs.n_others)).sum()
            for rows, pairs in ((users, self._by_user), (items, self._by_item))
        )
        return float(of_positives + of_all + penalty) / self._n_positives


def _steps(
    rows: Tensor, others: Tensor, pairs: GroupedPairs
) -> list[tuple[Tensor, Tensor, GroupedPairs, Tensor]]:
    """Return what is solved at a time: some `rows` (n, d), by number, given the `others` (m, d)."""
    dim, n = rows.shape[1], MAX_VALUES
    longest, columns = longest_short(dim), min(COLUMNS, dim)
    short = pairs.blocks(-1, longest, per_interaction=dim, per_row=dim, n_values=n)
    long = pairs.blocks(longest, math.inf, per_interaction=columns, per_row=columns**2, n_values=n)
    return [(rows, others, pairs, block) for block in short + long]


def longest_short(dim: int) -> int:
    """Return the largest number of interactions of a short row."""
    return int(SHORT_SHARE * dim)


def _add_scores(
    scores: list[Tensor], chunks: list[tuple[Tensor, Tensor]], vectors: Tensor, own: Tensor
) -> None:
    """Add the products of columns `own` (R, c) and the other side's `vectors` (m, c).

    They are added to the `scores` (R, w) of the interactions in `chunks`.
    """
    for (other, _), score in zip(chunks, scores, strict=True):
        score.add_(torch.bmm(vectors[other], own.unsqueeze(2)).squeeze(2))
