"""Counts of sorted keys before points of a line, for many lines at a time.

Negative sampling (`training.negatives`) counts a user's seen items with it. `SortedKeys` searches,
which is fast on a GPU; `Cells` gives the same counts in about two look-ups, which is fast on a CPU.
The speed of a look-up depends on the bytes that it moves, so numbers have 32 bits where they fit.
Reasons and measurements: docs/decisions/0011-fast-negative-sampling.md.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recsys.kernels.arrays import IntArray

CELLS_PER_KEY = 2
"""Least number of cells for each key of a line; the cells' length is a power of two."""
ROUNDS = 4
"""Keys to step over one by one. If a cell has more keys, a binary search steps over the rest."""
LINES_AT_A_TIME = 1 << 14
"""Lines that are cut at a time, since the temporaries are many times as large as the result."""


@dataclass(frozen=True)
class SortedKeys:
    """Sorted keys of all lines, one line after another on a single long line.

    Attributes:
        keys: keys of each line plus `stride` times the line's number, (n_keys,) int64.
        offsets: index of each line's first key, (n_lines + 1,) int64.
        stride: length of the longest line.
    """

    keys: Tensor
    offsets: Tensor
    stride: int

    def count_keys(self, line: Tensor, point: Tensor) -> Tensor:
        """Return the number of keys at or before points (B, n) of lines (B,), (B, n) int64."""
        end = torch.searchsorted(self.keys, line[:, None] * self.stride + point, side="right")
        return end - self.offsets[line][:, None]


@dataclass(frozen=True)
class Cells:
    """Sorted keys of all lines, and cells that each line is cut into, on the CPU.

    Attributes:
        shift: binary logarithm of the length of a line's cells, (n_lines,).
        first_cell: index of each line's first cell, (n_lines,).
        first_key: index of each line's first key, (n_lines,).
        key_of_cell: index of the first key in or after each cell, (n_cells,).
        keys: keys of each line, then one beyond every point, (n_keys + n_lines,).
    """

    shift: Tensor
    first_cell: Tensor
    first_key: Tensor
    key_of_cell: Tensor
    keys: Tensor

    def count_keys(self, line: Tensor, point: Tensor) -> Tensor:
        """Return the number of keys at or before points (B, n) of lines (B,), (B, n)."""
        shift, first_cell = (
            of_line.index_select(0, line)[:, None] for of_line in (self.shift, self.first_cell)
        )
        cell = (point >> shift) + first_cell
        # The first key after each point, as an index: at least the first key of the point's cell.
        index = self.key_of_cell.index_select(0, cell.reshape(-1))  # (B * n,)
        self._step(index, line, point)
        return index.view(point.shape).sub_(self.first_key.index_select(0, line)[:, None])

    def _step(self, index: Tensor, line: Tensor, point: Tensor) -> None:
        """Raise `index` (B * n,) until it is that of the first key after each point (B, n)."""
        behind, key, wanted = None, index, point.reshape(-1)
        for _ in range(ROUNDS):
            # Entries whose key is not yet after its point: few. numpy lists them four times as fast
            # as torch does.
            is_behind = self.keys.index_select(0, key) <= wanted
            some = torch.from_numpy(np.flatnonzero(is_behind.numpy()))
            behind = some if behind is None else behind.index_select(0, some)
            key, wanted = key.index_select(0, some).add_(1), wanted.index_select(0, some)
            index.index_copy_(0, behind, key)
        if behind is not None and len(behind):
            lines = line.index_select(0, behind // point.shape[1])
            index.index_copy_(0, behind, self._bisect(key, lines, wanted))

    def _bisect(self, low: Tensor, line: Tensor, wanted: Tensor) -> Tensor:
        """Return the index of the first key after points `wanted` (m,), from `low` (m,) on."""
        ends = torch.cat([self.first_key[1:], self.first_key.new_tensor([len(self.keys)])])
        high = ends.index_select(0, line) - 1  # the key beyond every point
        while bool((low < high).any()):
            middle = (low + high) >> 1
            is_before = self.keys.index_select(0, middle) <= wanted
            low, high = (
                torch.where(is_before, middle + 1, low),
                torch.where(is_before, high, middle),
            )
        return low


def cut_into_cells(keys: IntArray, offsets: IntArray, length: IntArray, longest: int) -> Cells:
    """Cut lines into cells.

    Args:
        keys: keys of each line in order, (n_keys,), from 0 to the line's length.
        offsets: index of each line's first key, (n_lines + 1,).
        length: length of each line, (n_lines,).
        longest: upper bound of the lengths.
    """
    n_keys = np.diff(offsets)
    wanted = np.maximum(CELLS_PER_KEY * n_keys, 1)
    shift = np.maximum(np.floor(np.log2(np.maximum(length, 1) / wanted)), 0).astype(np.int64)
    n_cells = (np.maximum(length - 1, 0) >> shift) + 1
    first_cell = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(n_cells)])
    # Each line before has one key more, the one beyond every point.
    first_key = offsets[:-1] + np.arange(len(n_keys))
    index_type, key_type = (
        np.int32 if most < 1 << 31 else np.int64 for most in (first_cell[-1], longest)
    )
    key_of_cell = np.empty(first_cell[-1], dtype=index_type)
    ended = np.full(len(keys) + len(n_keys), np.iinfo(key_type).max, dtype=key_type)
    for low in range(0, len(shift), LINES_AT_A_TIME):
        high = min(low + LINES_AT_A_TIME, len(shift))
        some = keys[offsets[low] : offsets[high]]
        line = np.repeat(np.arange(low, high), n_keys[low:high])
        ended[np.arange(offsets[low], offsets[high]) + line] = some
        # A key at the end of its line, after every point, counts as one of the last cell.
        cell = first_cell[line] + np.minimum(some >> shift[line], n_cells[line] - 1)
        counts = np.bincount(cell - first_cell[low], minlength=first_cell[high] - first_cell[low])
        n_before = offsets[low] + np.cumsum(counts) - counts
        line_of_cell = np.repeat(np.arange(low, high), n_cells[low:high])
        key_of_cell[first_cell[low] : first_cell[high]] = n_before + line_of_cell
    of_line = (
        shift.astype(key_type),
        first_cell[:-1].astype(index_type),
        first_key.astype(index_type),
    )
    return Cells(*(torch.from_numpy(array) for array in (*of_line, key_of_cell, ended)))
