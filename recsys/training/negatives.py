"""Fresh negatives for the rows of an epoch, drawn on the device that trains."""

import numpy as np
import torch
from torch import Tensor

from recsys.data.negatives import UnseenLines, UserItemIndex, unseen_lines
from recsys.kernels.arrays import IntArray
from recsys.kernels.cells import Cells, SortedKeys, cut_into_cells

MAX_32_BIT = 1 << 22
"""Most items for which 32 random bits make a draw: the items' chances are then equal to within a
thousandth."""
_LEAST = -(1 << 63)


class TorchNegativeSampler:
    """Sampler of items that a user has not seen, uniform or by integer weights (n_items,).

    It counts seen items by cells on a CPU and by a search elsewhere: a search is as fast on a GPU,
    where cells would wait for the device in each round. The caller must not draw for a user who has
    seen every item.
    """

    def __init__(
        self, seen: UserItemIndex, weights: IntArray | None, device: str | torch.device
    ) -> None:
        lines = unseen_lines(seen, weights)
        self.mass = torch.from_numpy(lines.mass).to(device)  # (n_users,) int64
        self._stride = lines.stride
        self._on_cpu = torch.device(device).type == "cpu"
        self._keys = _cells_of(lines) if self._on_cpu else _sorted_keys_of(lines, device)
        self._weighted = None if weights is None else _WeightedItems(lines, device)

    def item_at(self, user: Tensor, point: Tensor) -> Tensor:
        """Return the items at points (B, n) of the lines of users (B,), (B, n).

        A point is from 0 to the line's length, exclusive.
        """
        n_seen = self._keys.count_keys(user, point)
        if self._weighted is None:
            return point + n_seen
        return self._weighted.item_at(user, point, n_seen)

    def sample(self, user: Tensor, n: int, generator: torch.Generator) -> Tensor:
        """Draw `n` items for each user independently: (B,) int64 -> (B, n), on the device."""
        return self.item_at(user, self._draw_points(user, n, generator))

    def _draw_points(self, user: Tensor, n: int, generator: torch.Generator) -> Tensor:
        """Draw points (B, n) of the lines of users (B,)."""
        mass = self.mass.index_select(0, user)[:, None]
        if not self._on_cpu or self._stride > MAX_32_BIT:
            uniform = torch.rand(
                (len(user), n), generator=generator, device=user.device, dtype=torch.float64
            )
            return torch.minimum(uniform.mul_(mass).long(), mass - 1)
        # Each random number of 64 bits makes two draws.
        words = torch.empty((len(user) * n + 1) // 2, dtype=torch.int64)
        words.random_(_LEAST, None, generator=generator)
        bits = words.view(torch.int32)[: len(user) * n].view(-1, n)
        return bits.double().add_(2.0**31).mul_(mass * 2.0**-32).int()


class _WeightedItems:
    """All items on one line, each as long as its weight."""

    def __init__(self, lines: UnseenLines, device: str | torch.device) -> None:
        assert lines.seen_before is not None
        assert lines.item_ends is not None
        self._offsets = torch.from_numpy(lines.offsets).to(device)
        self._seen_before = torch.from_numpy(lines.seen_before).to(device)
        self._ends: Tensor | Cells
        if torch.device(device).type == "cpu":
            offsets, length = np.array([0, len(lines.item_ends)]), np.array([lines.stride])
            self._ends = cut_into_cells(lines.item_ends, offsets, length, lines.stride)
        else:
            self._ends = torch.from_numpy(lines.item_ends).to(device)

    def item_at(self, user: Tensor, point: Tensor, n_seen: Tensor) -> Tensor:
        """Return the items at points (B, n) of the lines of users (B,), (B, n).

        `n_seen` (B, n): the user's seen items before each point.
        """
        first = self._offsets[user][:, None]
        position = point + self._seen_before[n_seen + first] - self._seen_before[first]
        if isinstance(self._ends, Cells):
            return self._ends.count_keys(torch.zeros_like(user), position)
        return torch.searchsorted(self._ends, position, right=True)


def _cells_of(lines: UnseenLines) -> Cells:
    """Return the keys of the users' lines, each from the start of its own line, cut into cells."""
    user = np.repeat(np.arange(len(lines.mass)), np.diff(lines.offsets))
    return cut_into_cells(lines.keys - user * lines.stride, lines.offsets, lines.mass, lines.stride)


def _sorted_keys_of(lines: UnseenLines, device: str | torch.device) -> SortedKeys:
    keys, offsets = (torch.from_numpy(array).to(device) for array in (lines.keys, lines.offsets))
    return SortedKeys(keys, offsets, lines.stride)
