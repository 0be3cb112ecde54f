"""Which items a user never interacted with, and exact draws from them.

Stands between the split and training. Ray Data draws fixed negatives and candidates here with numpy; a trial draws fresh
negatives with torch on its own device. There is no rejection loop: lay a user's free items out on a line, each as long as its
weight, draw a point t, and step over the known items that lie before it. With unit weights the r-th free item of a user with
known items a_0 < a_1 < ... is r + #{j : a_j - j <= r}; the same count, taken in units of weight, serves any distribution. All
arithmetic is in integers, so every draw is exact, and one `searchsorted` over all users' sorted keys answers a whole batch. With
torch on a CPU, where draws are many, each line is cut into cells that know how many keys lie before them; most draws are
answered by that and the next key.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

IntArray = npt.NDArray[np.integer[Any]]

CELLS_PER_PAIR = 2
"""Cells of a user's line for each of its known items, rounded up so that a cell's length is a power of two."""
_BEHIND_ALL = np.iinfo(np.int64).max
"""Ends a list of keys, so that there is a next one behind each."""
TOTAL_WEIGHT = 1 << 36
"""Units that all items' weights add up to, about: fine enough for a share of 1e-10, and 2^26 users still fit an int64 key."""


@dataclass(frozen=True)
class UserItemIndex:
    """Every user's known items, each once, in one flat array sorted by user and item.

    `offsets` (n_users + 1,) int64: user u's items are `items[offsets[u]:offsets[u + 1]]`. `items` (n_pairs,) int32.
    """

    offsets: IntArray
    items: IntArray
    n_items: int

    @property
    def n_users(self) -> int:
        """Users of the data, those without an item included."""
        return len(self.offsets) - 1

    def users(self) -> IntArray:
        """The user of each entry of `items`, (n_pairs,) int32."""
        return np.repeat(np.arange(self.n_users, dtype=np.int32), np.diff(self.offsets))


def index_pairs(user: IntArray, item: IntArray, n_users: int, n_items: int) -> UserItemIndex:
    """Index pairs (n,), (n,) in any order, duplicates merged."""
    # np.unique hashes integers, at ten times the cost of this sort.
    keys = np.sort(user.astype(np.int64) * n_items + item)
    keys = keys[np.r_[True, keys[1:] != keys[:-1]][: len(keys)]]
    offsets = np.searchsorted(keys, np.arange(n_users + 1, dtype=np.int64) * n_items)
    return UserItemIndex(offsets, (keys % n_items).astype(np.int32), n_items)


def popularity_weights(item: IntArray, n_items: int, alpha: float) -> IntArray:
    """Integer weights (n_items,) int64 proportional to count ** alpha; an item without interactions counts as one.

    Source: Mikolov et al. 2013, arXiv:1310.4546, sec. 2.2 (the exponent 0.75).
    """
    share = np.maximum(np.bincount(item, minlength=n_items), 1).astype(np.float64) ** alpha
    weights: IntArray = np.maximum(np.rint(share / share.sum() * TOTAL_WEIGHT), 1).astype(np.int64)
    return weights


class NegativeSampler:
    """Draws items that a user never interacted with, uniformly or by integer weights (n_items,).

    Holds numpy arrays; `to` gives a sampler of torch tensors on a device. The arithmetic is the same. Drawing for a user without
    a free item is an error of the caller: the preprocessing refuses such users by name.
    """

    def __init__(self, known: UserItemIndex, weights: IntArray | None = None) -> None:
        offsets = known.offsets.astype(np.int64)
        if weights is None:
            length, cumulative = np.ones(len(known.items), dtype=np.int64), None
            total = known.n_items
        else:
            length = weights[known.items].astype(np.int64)
            cumulative = np.cumsum(weights, dtype=np.int64)
            total = int(cumulative[-1])
        mass_before = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(length)])  # (n_pairs + 1,)
        known_mass = mass_before[offsets[1:]] - mass_before[offsets[:-1]]
        start = known.items.astype(np.int64) if cumulative is None else cumulative[known.items] - length
        user = known.users().astype(np.int64)
        self.stride = total
        keys = user * total + start - (mass_before[:-1] - mass_before[offsets[:-1]][user])
        self.keys: Any = np.append(keys, _BEHIND_ALL)
        self.offsets: Any = offsets
        self.mass_before: Any = None if cumulative is None else mass_before
        self.cumulative: Any = None if cumulative is None else np.append(cumulative, _BEHIND_ALL)
        self.free_mass: Any = total - known_mass  # (n_users,)
        self.cells: _Cells | None = None
        self.item_cells: _Cells | None = None
        self._searchsorted: Any = np.searchsorted

    def to(self, device: str | torch.device) -> NegativeSampler:
        """The same sampler with its arrays as torch tensors on `device` (views of the numpy arrays on the CPU)."""
        import torch

        moved = object.__new__(NegativeSampler)
        moved.stride, moved._searchsorted = self.stride, torch.searchsorted
        for name in ("keys", "offsets", "mass_before", "cumulative", "free_mass"):
            array = getattr(self, name)
            setattr(moved, name, None if array is None else torch.from_numpy(array).to(device))
        moved.cells = moved.item_cells = None
        # Elsewhere a search is as fast as a look-up, and picking out the keys for another round would wait for the device.
        if torch.device(device).type == "cpu":
            moved.cells = _cut_into_cells(self.keys, self.offsets, self.free_mass, self.stride).to(device)
            if self.cumulative is not None:
                # All items on one line, for the way back from a position to its item.
                ends, length = np.array([0, len(self.cumulative) - 1]), np.array([self.stride])
                moved.item_cells = _cut_into_cells(self.cumulative, ends, length, self.stride).to(device)
        return moved

    def item_at(self, user: Any, point: Any) -> Any:
        """The free item at `point` (B, n) of each user's line, 0 <= point < free_mass[user]; `user` (B,), result (B, n) int64."""
        key = user[:, None] * self.stride + point
        if self.cells is None:
            index = self._searchsorted(self.keys, key, side="right")
        else:
            index = self.cells.search(self.keys, user, point, key)
        first = self.offsets[user][:, None]
        if self.mass_before is None:
            return point + index - first
        position = point + self.mass_before[index] - self.mass_before[first]
        if self.item_cells is None:
            return self._searchsorted(self.cumulative, position, side="right")
        return self.item_cells.search(self.cumulative, user * 0, position, position)

    def sample(self, user: torch.Tensor, n: int, generator: torch.Generator) -> torch.Tensor:
        """`n` independent draws for each user, (B,) int64 -> (B, n) int64, on the sampler's device."""
        import torch

        mass = self.free_mass.index_select(0, user)[:, None]
        uniform = torch.rand((len(user), n), generator=generator, device=user.device, dtype=torch.float64)
        items: torch.Tensor = self.item_at(user, torch.minimum(uniform.mul_(mass).long(), mass - 1))
        return items

    def sample_numpy(self, user: IntArray, n: int, generator: np.random.Generator) -> IntArray:
        """`n` independent draws for each user, (B,) int64 -> (B, n) int64."""
        point = generator.integers(0, self.free_mass[user][:, None], size=(len(user), n))
        items: IntArray = self.item_at(user, point)
        return items

    def sample_distinct(self, user: IntArray, n: int, generator: np.random.Generator) -> IntArray:
        """`n` different free items for each user, uniform among all such sets: (B,) int64 -> (B, n) int64. Unit weights only.

        Source: Floyd's algorithm, in Bentley and Floyd 1987, Communications of the ACM 30(9), one step for all rows at a time.
        """
        free = self.free_mass[user]
        chosen = np.empty((len(user), n), dtype=np.int64)
        for step in range(n):
            top = free - n + step
            draw = generator.integers(0, top + 1)
            taken = (chosen[:, :step] == draw[:, None]).any(axis=1)
            chosen[:, step] = np.where(taken, top, draw)
        items: IntArray = self.item_at(user, chosen)
        return items


@dataclass(frozen=True)
class _Cells:
    """Every user's line cut into cells of 2^shift, all in one row: numpy arrays, torch tensors after `to`.

    `shift`, `first` (n_users,) int64: a user's length of cells and its first one. `start` (n_cells,) int32: the keys before each.
    """

    shift: Any
    first: Any
    start: Any

    def to(self, device: str | torch.device) -> _Cells:
        import torch

        return _Cells(*(torch.from_numpy(array).to(device) for array in (self.shift, self.first, self.start)))

    def search(self, keys: torch.Tensor, user: torch.Tensor, point: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        """`searchsorted(keys, key, side="right")` for the keys (B, n) of points (B, n) on the lines of users (B,)."""
        import torch

        cell = (point >> self.shift.index_select(0, user)[:, None]).add_(self.first.index_select(0, user)[:, None])
        index = self.start.index_select(0, cell.reshape(-1)).long()
        # Done, but for keys of the same cell before the point: one key further for three rounds, then any number.
        more, at, wanted = torch.arange(len(index), device=index.device), index, key.reshape(-1)
        for _ in range(4):
            before = (keys.index_select(0, at) <= wanted).nonzero().squeeze(1)
            more, at, wanted = (values.index_select(0, before) for values in (more, at + 1, wanted))
            index.index_copy_(0, more, at)
        index.index_copy_(0, more, torch.searchsorted(keys, wanted, side="right"))
        found: torch.Tensor = index.view(key.shape)
        return found


def _cut_into_cells(keys: IntArray, offsets: IntArray, free_mass: IntArray, stride: int) -> _Cells:
    wanted = np.maximum(CELLS_PER_PAIR * np.diff(offsets), 1)
    shift = np.maximum(np.floor(np.log2(np.maximum(free_mass, 1) / wanted)), 0).astype(np.int64)
    n_cells = (np.maximum(free_mass - 1, 0) >> shift) + 1
    first = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(n_cells)])
    start = np.empty(first[-1], dtype=np.int32)
    # Some users at a time, since the temporaries are many times the result.
    for low in range(0, len(shift), 1 << 14):
        high = min(low + (1 << 14), len(shift))
        user = np.repeat(np.arange(low, high), np.diff(offsets[low : high + 1]))
        place = (keys[offsets[low] : offsets[high]] - user * stride) >> shift[user]
        # A key at the end of the line, behind all points, counts for the last cell.
        cell = first[user] - first[low] + np.minimum(place, n_cells[user] - 1)
        counts = np.bincount(cell, minlength=first[high] - first[low])
        start[first[low] : first[high]] = offsets[low] + np.cumsum(counts) - counts
    return _Cells(shift, first[:-1], start)
