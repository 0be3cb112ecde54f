"""Alternating least squares: squared errors over all pairs, each side solved given the other.

`fit` calls it if `training.loss` is squared, for an inner product s = <u, i>. The loss is

    sum over positives (1 - s)^2 + a * sum over all pairs but low ratings s^2
        + b * sum over users (n_u + a * n_items) ||u||^2
        + b * sum over items (n_i + a * n_users) ||i||^2

where n_u and n_i count the positives of a user and of an item. The weight a is such that all pairs
of the second sum together weigh as much as `n_negatives` negatives for each positive. With
b = l2 / (1 + n_negatives), `l2` is the penalty of a positive with its negatives, as in every other
loss. Given the items, a user's vector is the solution of d linear equations, and there is no step
size to tune. Of a row with few interactions, as many equations as it has interactions are solved.
Of the others, a wide vector is solved `COLUMNS` columns at a time, each given the others. Biases
stay 0.

Source: Hu et al. 2008, ICDM, eq. 3 to 5; Rendle et al. 2022, arXiv:2110.14037, sec. 3 (the weights
and the regularisation); Rendle et al. 2021, arXiv:2110.14044, sec. 4 (blocks of columns).
"""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from recsys.config.schema import Config
from recsys.data.interactions import Interactions
from recsys.errors import DivergenceError
from recsys.kernels.arrays import IntArray
from recsys.kernels.tensors import as_tensor
from recsys.training.checkpoint import TrainingState

_ROUNDING = 1e-6
COLUMNS = 64
"""Columns that are solved at a time: the work grows with the width, not with its square."""
SHORT_SHARE = 0.5
"""Largest number of interactions, as a share of the columns, of a row that is solved by them."""
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
        self._by_user = _group(user, item, (n_users, n_items), len(data.user), device)
        self._by_item = _group(item, user, (n_items, n_users), len(data.user), device)
        dim = self._users.shape[1]
        self._of_items = [
            (self._items, self._users, self._by_item, block) for block in self._by_item.blocks(dim)
        ]
        self._of_users = [
            (self._users, self._items, self._by_user, block) for block in self._by_user.blocks(dim)
        ]
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
        steps = (self._of_users if epoch == 1 else []) + self._of_items + self._of_users
        begin, end = (number * len(steps) // self.n_segments for number in (segment - 1, segment))
        given: _GivenSide | None = None
        for number in range(begin, end):
            rows, others, pairs, block = steps[number]
            if given is None or steps[number - 1][0] is not rows:
                given = _given_side(others)
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

    def _solve(self, rows: Tensor, given: "_GivenSide", pairs: "_Pairs", block: Tensor) -> None:
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
                raise _without_single_solution()
            change = torch.cholesky_solve(right.unsqueeze(2), factor).squeeze(2)
            own[:, columns] += change
            if columns.stop < own.shape[1]:
                _add_scores(scores, chunks, vectors, change)
        rows[block] = own

    def _solve_short(
        self, rows: Tensor, given: "_GivenSide", pairs: "_Pairs", block: Tensor
    ) -> None:
        """Solve the `block` (R,) of `rows` (n, d), which have few interactions.

        The equations of a row are (D + V' C V) x = V' p, with D diagonal in the basis of the
        eigenvectors of the gram matrix, V (w, d) the vectors of its interactions in that basis, C
        their weights, and p 1 for a positive. So x = D^-1 V' z with (1 + C V D^-1 V') z = p.

        Raises:
            DivergenceError: if the equations have no single solution.
        """
        l2 = (self._l2 * (pairs.n_positives[block] + self._weight * pairs.n_others)).unsqueeze(1)
        eigenvalues, basis, rotated = given.spectrum
        diagonal = self._weight * eigenvalues + l2  # (R, d)
        if bool((diagonal.amin(1) <= _ROUNDING * diagonal.amax(1)).any()):
            raise _without_single_solution()
        other, share = pairs.padded(block)  # (R, w)
        vectors = rotated[other]  # (R, w, d)
        scaled = vectors / diagonal.unsqueeze(1)
        left = torch.bmm(scaled, vectors.transpose(1, 2))
        left *= torch.where(share > 0, share, share * self._weight).unsqueeze(2)
        left.diagonal(dim1=1, dim2=2).add_(1)
        solution, info = torch.linalg.solve_ex(left, share.clamp(min=0).unsqueeze(2))
        if bool(info.any()):
            raise _without_single_solution()
        rows[block] = torch.bmm(scaled.transpose(1, 2), solution).squeeze(2) @ basis.T

    def _loss(self) -> float:
        """Return the mean loss of a positive, with low ratings counted as other pairs."""
        users, items = self._users, self._items
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


@dataclass(frozen=True)
class _GivenSide:
    """The given side: vectors (m, d).

    `gram` (d, d): the products of its columns. `slices`: its columns in slices of `width`, each
    (m, c).
    """

    gram: Tensor
    slices: list[tuple[slice, Tensor]]
    width: int

    @cached_property
    def spectrum(self) -> tuple[Tensor, Tensor, Tensor]:
        """Eigenvalues (d,) of the gram matrix, its eigenvectors (d, d), and the vectors by them."""
        eigenvalues, basis = torch.linalg.eigh(self.gram)
        parts = [vectors @ basis[columns] for columns, vectors in self.slices]
        return eigenvalues.clamp(min=0), basis, sum(parts[1:], start=parts[0])


def longest_short(dim: int) -> int:
    """Return the largest number of interactions of a row that is solved by them."""
    return int(SHORT_SHARE * dim)


def _without_single_solution() -> DivergenceError:
    return DivergenceError(
        "loss squared", "must have a single solution", "none", "Raise training.l2."
    )


def _given_side(others: Tensor) -> _GivenSide:
    dim = others.shape[1]
    slices = [slice(first, min(first + COLUMNS, dim)) for first in range(0, dim, COLUMNS)]
    return _GivenSide(
        others.T @ others,
        [(columns, others[:, columns].contiguous()) for columns in slices],
        min(COLUMNS, dim),
    )


@dataclass(frozen=True)
class _Pairs:
    """Interactions of each row, users or items, in one flat list.

    `starts`, `counts` (n,) int64. `others` (N,) int32. `shares` (N,) float32: 1 for a
    positive, -1 for a low rating. `n_positives` (n,) int64. `n_others`: rows of the other side.
    """

    starts: Tensor
    counts: Tensor
    others: Tensor
    shares: Tensor
    n_positives: Tensor
    n_others: int

    def blocks(self, dim: int) -> list[Tensor]:
        """Return the rows that are solved at a time, each (R,), with about as many interactions."""
        order = self.counts.argsort(stable=True)
        counts, blocks, first = self.counts[order].tolist(), [], 0
        n_short, columns = bisect_right(counts, longest_short(dim)), min(COLUMNS, dim)
        for end, width, n_values in ((n_short, dim, dim), (len(order), columns, columns**2)):
            while first < end:
                last = min(first + max(1, MAX_VALUES // n_values), end)
                while last - first > 1 and counts[last - 1] * (last - first) * width > MAX_VALUES:
                    last = first + (last - first) // 2
                blocks.append(order[first:last])
                first = last
        return blocks

    def padded(self, block: Tensor) -> tuple[Tensor, Tensor]:
        """Return all interactions of a block (R,), in the form of `of`."""
        return next(self.of(block, self._longest(block) * len(block)))

    def of(self, block: Tensor, n: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the interactions of a block (R,), about `n` at a time.

        They are others and shares (R, w); the shares are 0 where a row has fewer interactions.
        """
        counts, starts = self.counts[block].unsqueeze(1), self.starts[block].unsqueeze(1)
        longest, width = self._longest(block), max(1, n // len(block))
        for first in range(0, longest, width):
            number = torch.arange(first, min(first + width, longest), device=block.device)
            index = (starts + number).clamp(max=len(self.others) - 1)
            yield self.others[index].long(), self.shares[index] * (number < counts)

    def _longest(self, block: Tensor) -> int:
        """Return the largest number of interactions of a row of a block, at least 1."""
        return max(1, int(self.counts[block].max()))


def _add_scores(
    scores: list[Tensor], chunks: list[tuple[Tensor, Tensor]], vectors: Tensor, own: Tensor
) -> None:
    """Add the products of columns `own` (R, c) and the other side's `vectors` (m, c).

    They are added to the `scores` (R, w) of the interactions in `chunks`.
    """
    for (other, _), score in zip(chunks, scores, strict=True):
        score.add_(torch.bmm(vectors[other], own.unsqueeze(2)).squeeze(2))


def _group(
    rows: IntArray,
    others: IntArray,
    sizes: tuple[int, int],
    n_positives: int,
    device: str | torch.device,
) -> _Pairs:
    """Group interactions (N,), of which the first `n_positives` are positives, by row.

    `sizes`: the number of rows and of others in the data.
    """
    order, (n_rows, n_others) = np.argsort(rows, kind="stable"), sizes
    counts = np.bincount(rows, minlength=n_rows)
    n_positive = np.bincount(rows[:n_positives], minlength=n_rows)
    arrays = (np.cumsum(counts) - counts, counts, others[order], n_positive)
    starts, count, other, positive = (as_tensor(array, device) for array in arrays)
    shares = torch.from_numpy(np.where(order < n_positives, 1, -1).astype(np.float32)).to(device)
    return _Pairs(starts, count, other, shares, positive, n_others)
