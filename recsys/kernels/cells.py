"""Users' lines of free items cut into cells, so that most searches on a line take two look-ups.

The part of `negatives` that draws for training on a CPU, where draws are many. A line holds keys in order; a cell knows where the
keys of its line that lie before it end. Numbers are 32 bits wide wherever they fit, since a draw costs what it moves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

IntArray = npt.NDArray[np.integer[Any]]

CELLS_PER_KEY = 2
"""Cells of a line for each of its keys, rounded up so that a cell's length is a power of two."""
ROUNDS = 4
"""Keys that are stepped over one by one; beyond, where keys lie in a clump, the rest of the line is halved again and again."""


@dataclass(frozen=True)
class Cells:
    """Every line's keys and cells, all in one row, on the CPU.

    `shift`, `first_cell`, `first_key` (n_lines,): a line's cells are of length 2^shift, and where its cells and keys begin.
    `before` (n_cells,): the first key at or behind the cell's begin. `keys` (n_keys + n_lines,): each line's keys and one behind
    every point.
    """

    shift: torch.Tensor
    first_cell: torch.Tensor
    first_key: torch.Tensor
    before: torch.Tensor
    keys: torch.Tensor

    def count_keys(self, line: torch.Tensor, point: torch.Tensor) -> torch.Tensor:
        """How many keys of lines (B,) lie at or before points (B, n) of them, (B, n)."""
        import torch

        cell = (point >> self.shift.index_select(0, line)[:, None]) + self.first_cell.index_select(
            0, line
        )[:, None]
        wanted = point.reshape(-1)
        index = self.before.index_select(0, cell.reshape(-1))
        more, at = None, index
        for _ in range(ROUNDS):
            # numpy lists the few that are left four times as fast as torch.
            left = torch.from_numpy(
                np.flatnonzero((self.keys.index_select(0, at) <= wanted).numpy())
            )
            more = left if more is None else more.index_select(0, left)
            at, wanted = at.index_select(0, left).add_(1), wanted.index_select(0, left)
            index.index_copy_(0, more, at)
        if more is not None and len(more):
            index.index_copy_(
                0, more, self._halve(at, line.index_select(0, more // point.shape[1]), wanted)
            )
        return index.view(point.shape).sub_(self.first_key.index_select(0, line)[:, None])

    def _halve(self, at: torch.Tensor, line: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        """The first key behind each point, from key `at` on."""
        import torch

        low, high = (
            at,
            torch.cat(
                [self.first_key[1:], self.first_key.new_tensor([len(self.keys)])]
            ).index_select(0, line)
            - 1,
        )
        while bool((low < high).any()):
            middle = (low + high) >> 1
            is_before = self.keys.index_select(0, middle) <= wanted
            low, high = (
                torch.where(is_before, middle + 1, low),
                torch.where(is_before, high, middle),
            )
        return low


def cut_into_cells(keys: IntArray, offsets: IntArray, length: IntArray, longest: int) -> Cells:
    """Cells for lines of `length` (n_lines,), none above `longest`, with `keys` (n_keys,) in order; `offsets` (n_lines + 1,)."""
    import torch

    n_keys = np.diff(offsets)
    wanted = np.maximum(CELLS_PER_KEY * n_keys, 1)
    shift = np.maximum(np.floor(np.log2(np.maximum(length, 1) / wanted)), 0).astype(np.int64)
    n_cells = (np.maximum(length - 1, 0) >> shift) + 1
    first_cell = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(n_cells)])
    first_key = offsets[:-1] + np.arange(len(n_keys))
    index_type, key_type = (
        np.int32 if most < 1 << 31 else np.int64 for most in (first_cell[-1], longest)
    )
    before = np.empty(first_cell[-1], dtype=index_type)
    ended = np.full(len(keys) + len(n_keys), np.iinfo(key_type).max, dtype=key_type)
    # Some lines at a time, since the temporaries are many times the result.
    for low in range(0, len(shift), 1 << 14):
        high = min(low + (1 << 14), len(shift))
        line = np.repeat(np.arange(low, high), n_keys[low:high])
        part = keys[offsets[low] : offsets[high]]
        ended[np.arange(offsets[low], offsets[high]) + line] = part
        # A key at the end of the line, behind all points, counts for the last cell.
        cell = (
            first_cell[line] - first_cell[low] + np.minimum(part >> shift[line], n_cells[line] - 1)
        )
        counts = np.bincount(cell, minlength=first_cell[high] - first_cell[low])
        lines_before = np.repeat(np.arange(low, high), n_cells[low:high])
        before[first_cell[low] : first_cell[high]] = (
            offsets[low] + np.cumsum(counts) - counts + lines_before
        )
    arrays = (
        shift.astype(key_type),
        first_cell[:-1].astype(index_type),
        first_key.astype(index_type),
        before,
        ended,
    )
    return Cells(*(torch.from_numpy(array) for array in arrays))
