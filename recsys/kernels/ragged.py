"""Ragged lists: lists of unequal length that follow each other in one flat array.

Ranking and training use them for the items of a batch of users.
"""

import numpy as np
import torch
from torch import Tensor

from recsys.kernels.arrays import IntArray


def expand(starts: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Return the list and the index in the flat array of every entry of some lists.

    Args:
        starts: index at which each list starts, (R,) int64.
        counts: length of each list, (R,) int64.

    Returns:
        List of each entry, from 0 to R - 1 in order, and index of the entry, (sum of counts,) int64
        each.
    """
    row = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)
    # An entry's index less its position in the result is the same for all entries of a list.
    shift = starts - (counts.cumsum(0) - counts)  # (R,)
    return row, torch.arange(len(row), device=counts.device) + shift[row]


def expand_numpy(starts: IntArray, counts: IntArray) -> tuple[IntArray, IntArray]:
    """Return the same as `expand` for numpy arrays, which is faster for short ones."""
    row = np.repeat(np.arange(len(counts)), counts)
    shift = starts - (np.cumsum(counts) - counts)  # (R,)
    return row, np.arange(len(row)) + shift[row]
