"""Counts by cells equal those of a search, for any lengths of lines and any keys."""

import numpy as np
import pytest
import torch

from recsys.kernels.cells import SortedKeys, cut_into_cells


@pytest.mark.parametrize("longest", [50, 5_000, 1 << 36])
def test_counts_are_those_of_a_search(longest: int) -> None:
    rng = np.random.default_rng(0)
    length = np.r_[rng.integers(1, longest + 1, 20), 1, longest]
    # None at all, some apart, a clump at one point, and keys behind the last point.
    lines = [
        np.sort(rng.integers(0, most + 1, count))
        for most, count in zip(length, rng.integers(0, 30, 22), strict=True)
    ]
    lines[0], lines[1], lines[21] = (
        np.empty(0, dtype=np.int64),
        np.full(40, length[1] // 2),
        np.full(3, longest),
    )
    offsets = np.concatenate([[0], np.cumsum([len(line) for line in lines])])
    cells = cut_into_cells(np.concatenate(lines), offsets, length, longest)
    assert cells.keys.dtype == (torch.int32 if longest < 1 << 31 else torch.int64)
    line = rng.permutation(np.repeat(np.arange(22), 5))
    near_keys = np.array([[rng.choice(np.r_[lines[at], 0]) for _ in range(4)] for at in line])
    anywhere = rng.integers(0, length[line][:, None], (len(line), 4))
    point = np.minimum(
        np.column_stack([near_keys, anywhere, length[line] - 1]), length[line][:, None] - 1
    )
    expected = [
        np.searchsorted(lines[at], points, side="right").tolist()
        for at, points in zip(line, point, strict=True)
    ]
    assert cells.count_keys(torch.from_numpy(line), torch.from_numpy(point)).tolist() == expected
    on_one_line = np.concatenate(lines) + np.repeat(np.arange(22), np.diff(offsets)) * (longest + 1)
    keys = SortedKeys(torch.from_numpy(on_one_line), torch.from_numpy(offsets), longest + 1)
    assert keys.count_keys(torch.from_numpy(line), torch.from_numpy(point)).tolist() == expected
