import numpy as np
import pytest
import torch

from recsys.kernels.ragged import expand, expand_numpy


def expand_in_a_loop(starts: list[int], counts: list[int]) -> list[tuple[int, int]]:
    return [
        (row, start + position)
        for row, (start, count) in enumerate(zip(starts, counts, strict=True))
        for position in range(count)
    ]


@pytest.mark.parametrize(
    ("starts", "counts"),
    [
        ([], []),
        ([3], [0]),
        ([0, 2, 5], [2, 3, 1]),
        # Out of order, one list twice, empty lists at both ends and in the middle.
        ([9, 4, 4, 0, 7, 1], [0, 3, 3, 0, 2, 0]),
    ],
)
def test_each_entry_of_each_list_is_found(starts: list[int], counts: list[int]) -> None:
    expected = expand_in_a_loop(starts, counts)
    row, index = expand(
        torch.tensor(starts, dtype=torch.int64), torch.tensor(counts, dtype=torch.int64)
    )
    assert list(zip(row.tolist(), index.tolist(), strict=True)) == expected
    row_of, index_of = expand_numpy(np.array(starts, np.int64), np.array(counts, np.int64))
    assert list(zip(row_of.tolist(), index_of.tolist(), strict=True)) == expected
