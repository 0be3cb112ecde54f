"""The side that least squares is given while it solves the other one."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from recsys.errors import DivergenceError


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
            raise without_single_solution()
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


def without_single_solution() -> DivergenceError:
    """Return the error of equations without a single solution."""
    return DivergenceError(
        "loss squared", "must have a single solution", "none", "Raise training.l2."
    )
