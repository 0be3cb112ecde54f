"""Solution of the rows of one side of a factorisation, users or items, given the other side.

`least_squares` has the loss, trains both sides in turn, and folds in new users. A row with few
interactions needs only as many equations as it has interactions. The other rows, if wide, are
solved `COLUMNS` columns at a time, each given the others.

Source: Rendle et al. 2021, arXiv:2110.14044, sec. 4 (blocks of columns).
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional

from recsys.config.schema import Config
from recsys.errors import DivergenceError
from recsys.training.grouped_pairs import GroupedPairs

_ROUNDING = 1e-6
"""Ratio of the least to the greatest coefficient below which equations count as singular."""
COLUMNS = 64
"""Columns that are solved at a time: the work grows with the width, not with its square."""
SHORT_SHARE = 0.5
"""Largest number of interactions of a short row, as a share of the width. A short row has one
equation for each interaction."""
MAX_VALUES = 1 << 21
"""Values of the vectors or of the equations that are solved at a time: 8 MB."""


@dataclass(frozen=True)
class GivenSide:
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
        if not bool(self.gram.isfinite().all()):
            raise _without_single_solution()
        eigenvalues, basis = torch.linalg.eigh(self.gram)
        first, *further = (vectors @ basis[columns] for columns, vectors in self.slices)
        return eigenvalues.clamp(min=0), basis, sum(further, start=first)


def give(others: Tensor, columns: int) -> GivenSide:
    """Return the side of the vectors `others` (m, d), of which `columns` are used at a time."""
    dim = others.shape[1]
    slices = [slice(first, min(first + columns, dim)) for first in range(0, dim, columns)]
    return GivenSide(
        others.T @ others,
        [(some, others[:, some].contiguous()) for some in slices],
        min(columns, dim),
    )


@dataclass(frozen=True)
class RowSolver:
    """Solver of rows. `weight`: a in the loss of `least_squares`. `l2`: b in it."""

    weight: float
    l2: float

    @classmethod
    def of(cls, config: Config, n_positives: int, n_pairs: int) -> Self:
        """Return the solver for training data with `n_positives` among its `n_pairs` pairs."""
        n_negatives = config.training.n_negatives
        return cls(n_negatives * n_positives / n_pairs, config.training.l2 / (1 + n_negatives))

    def solve(self, rows: Tensor, given: GivenSide, pairs: GroupedPairs, block: Tensor) -> None:
        """Solve the `block` (R,) of `rows` (n, d), one of `blocks_of`, in place.

        Raises:
            DivergenceError: if the equations have no single solution.
        """
        is_short = int(pairs.counts[block].max()) <= longest_short(rows.shape[1])
        solve = self._solve_short if is_short else self._solve_long
        solve(rows, given, pairs, block)

    def _solve_long(
        self, rows: Tensor, given: GivenSide, pairs: GroupedPairs, block: Tensor
    ) -> None:
        """Solve the `block` (R,) of `rows` (n, d) given the other side, some columns at a time.

        Raises:
            DivergenceError: if the equations have no single solution.
        """
        l2 = (self.l2 * (pairs.n_positives[block] + self.weight * pairs.n_others)).unsqueeze(1)
        own, chunks = rows[block], list(pairs.of(block, MAX_VALUES // given.width))
        scores = [torch.zeros_like(share) for _, share in chunks]  # (R, w) each
        if len(given.slices) == 1:
            own.zero_()  # the solution does not depend on the old values
        else:
            for columns, vectors in given.slices:
                _add_scores(scores, chunks, vectors, own[:, columns])
        for columns, vectors in given.slices:
            left = (self.weight * given.gram[columns, columns]).repeat(len(block), 1, 1)
            right = -self.weight * (own @ given.gram[:, columns]) - l2 * own[:, columns]
            for (other, share), score in zip(chunks, scores, strict=True):
                some = functional.embedding(other, vectors)  # (R, w, c)
                weights = torch.where(share > 0, share, share * self.weight)
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
        l2 = (self.l2 * (pairs.n_positives[block] + self.weight * pairs.n_others)).unsqueeze(1)
        eigenvalues, basis, rotated = given.spectrum
        diagonal = self.weight * eigenvalues + l2  # (R, d)
        if not bool((diagonal.amin(1) > _ROUNDING * diagonal.amax(1)).all()):  # or it is NaN
            raise _without_single_solution()
        other, share = pairs.padded(block)  # (R, w)
        vectors = functional.embedding(other, rotated)  # (R, w, d)
        scaled = vectors / diagonal.unsqueeze(1)
        left = torch.bmm(scaled, vectors.transpose(1, 2))
        left *= torch.where(share > 0, share, share * self.weight).unsqueeze(2)
        left.diagonal(dim1=1, dim2=2).add_(1)
        solution, info = torch.linalg.solve_ex(left, share.clamp(min=0).unsqueeze(2))
        if bool(info.any()):
            raise _without_single_solution()
        rows[block] = torch.bmm(solution.transpose(1, 2), scaled).squeeze(1) @ basis.T


def blocks_of(pairs: GroupedPairs, dim: int, columns: int) -> list[Tensor]:
    """Return all rows in blocks (R,) that are solved at a time: short rows, and then the others.

    `dim`: the width of the rows. `columns`: how many columns of the others are solved at a time.
    """
    longest = longest_short(dim)
    short = pairs.blocks(-1, longest, per_interaction=dim, per_row=dim, n_values=MAX_VALUES)
    return short + pairs.blocks(
        longest, math.inf, per_interaction=columns, per_row=columns**2, n_values=MAX_VALUES
    )


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
        some = functional.embedding(other, vectors)  # (R, w, c)
        # As rows times matrices, seven times as fast on a CPU as matrices times columns.
        score.add_(torch.bmm(own.unsqueeze(1), some.transpose(1, 2)).squeeze(1))


def _without_single_solution() -> DivergenceError:
    return DivergenceError(
        "loss squared", "must have a single solution", "none", "Raise training.l2."
    )
