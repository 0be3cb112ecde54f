"""Interactions grouped by user or by item, for solvers that treat one row after another."""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recsys.kernels.arrays import IntArray
from recsys.kernels.tensors import as_tensor


@dataclass(frozen=True)
class GroupedPairs:
    """Interactions of each row, users or items, in one flat list.

    `starts`, `counts` (n,) int64. `others` (N,) int32. `shares` (N,) float32: the weight of a
    positive, -1 for a low rating. `n_positives` (n,) int64. `n_others`: rows of the other side.
    """

    starts: Tensor
    counts: Tensor
    others: Tensor
    shares: Tensor
    n_positives: Tensor
    n_others: int

    def blocks(
        self, above: float, until: float, *, per_interaction: int, per_row: int, n_values: int
    ) -> list[Tensor]:
        """Return the rows with more than `above` and at most `until` interactions, in blocks (R,).

        The rows of a block have similar numbers of interactions. A block of several rows needs at
        most `n_values` values, counted as `per_interaction` for each interaction and as `per_row`
        for each row.
        """
        order = self.counts.argsort(stable=True)
        counts, blocks = self.counts[order].tolist(), []
        first, end = bisect_right(counts, above), bisect_right(counts, until)
        while first < end:
            last = min(first + max(1, n_values // per_row), end)
            while (
                last - first > 1 and counts[last - 1] * (last - first) * per_interaction > n_values
            ):
                last = first + (last - first) // 2
            blocks.append(order[first:last])
            first = last
        return blocks

    def unweighted(self) -> Self:
        """Return the interactions with the weight 1 for each positive."""
        return replace(self, shares=self.shares.sign())

    def padded(self, block: Tensor) -> tuple[Tensor, Tensor]:
        """Return all interactions of a block (R,), as `of` yields them."""
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


def group_pairs(
    rows: IntArray,
    others: IntArray,
    sizes: tuple[int, int],
    weights: npt.NDArray[np.float32],
    device: str | torch.device,
) -> GroupedPairs:
    """Group interactions (N,) by row: positives with their `weights`, and then low ratings.

    `sizes`: the number of rows and of others in the data.
    """
    order, (n_rows, n_others) = np.argsort(rows, kind="stable"), sizes
    counts = np.bincount(rows, minlength=n_rows)
    n_positive = np.bincount(rows[: len(weights)], minlength=n_rows)
    shares = np.concatenate([weights, np.full(len(rows) - len(weights), -1, dtype=np.float32)])
    arrays = (np.cumsum(counts) - counts, counts, others[order], shares[order], n_positive)
    starts, count, other, share, positive = (as_tensor(array, device) for array in arrays)
    return GroupedPairs(starts, count, other, share, positive, n_others)
