"""Which items a user never interacted with, and exact draws from them.

Stands between the split and training. Ray Data draws fixed negatives and candidates here with numpy; a trial draws fresh
negatives with torch on its own device. There is no rejection loop: lay a user's free items out on a line, each as long as its
weight, draw a point t, and step over the known items that lie before it. With unit weights the r-th free item of a user with
known items a_0 < a_1 < ... is r + #{j : a_j - j <= r}; the same count, taken in units of weight, serves any distribution. All
arithmetic is in integers, so every draw is exact, and one `searchsorted` over all users' sorted keys answers a whole batch. With
torch on a CPU, where draws are many, each line is cut into cells that know how many keys lie before them (`cells`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from recsys.kernels.cells import Cells, cut_into_cells

if TYPE_CHECKING:
    import torch

IntArray = npt.NDArray[np.integer[Any]]

TOTAL_WEIGHT = 1 << 36
"""Units that all items' weights add up to, about: fine enough for a share of 1e-10, and 2^26 users still fit an int64 key."""
MAX_32_BIT = 1 << 22
"""Items up to which 32 random bits make a draw: the chances of two of them then differ by a thousandth of themselves at most."""
_LEAST = -(1 << 63)


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
        mass_before = np.concatenate(
            [np.zeros(1, dtype=np.int64), np.cumsum(length)]
        )  # (n_pairs + 1,)
        known_mass = mass_before[offsets[1:]] - mass_before[offsets[:-1]]
        start = (
            known.items.astype(np.int64) if cumulative is None else cumulative[known.items] - length
        )
        user = known.users().astype(np.int64)
        self.stride = total
        keys = user * total + start - (mass_before[:-1] - mass_before[offsets[:-1]][user])
        self.keys: Any = keys
        self.offsets: Any = offsets
        self.mass_before: Any = None if cumulative is None else mass_before
        self.cumulative: Any = cumulative
        self.free_mass: Any = total - known_mass  # (n_users,)
        self.cells: Cells | None = None
        self.item_cells: Cells | None = None
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
            users = np.repeat(np.arange(len(self.free_mass)), np.diff(self.offsets))
            moved.cells = cut_into_cells(
                self.keys - users * self.stride, self.offsets, self.free_mass, self.stride
            )
            moved.keys = None
            if self.cumulative is not None:
                # All items on one line, for the way back from a position to its item.
                ends, length = np.array([0, len(self.cumulative)]), np.array([self.stride])
                moved.item_cells = cut_into_cells(self.cumulative, ends, length, self.stride)
        return moved

    def item_at(self, user: Any, point: Any) -> Any:
        """The free item at `point` (B, n) of each user's line, 0 <= point < free_mass[user]; `user` (B,), result (B, n)."""
        first = self.offsets[user][:, None]
        if self.cells is None:
            count = (
                self._searchsorted(self.keys, user[:, None] * self.stride + point, side="right")
                - first
            )
        else:
            count = self.cells.count_keys(user, point)
        if self.mass_before is None:
            return point + count
        position = point + self.mass_before[count + first] - self.mass_before[first]
        if self.item_cells is None:
            return self._searchsorted(self.cumulative, position, side="right")
        return self.item_cells.count_keys(user * 0, position)

    def sample(self, user: torch.Tensor, n: int, generator: torch.Generator) -> torch.Tensor:
        """`n` independent draws for each user, (B,) int64 -> (B, n), on the sampler's device."""
        items: torch.Tensor = self.item_at(user, self._draw_points(user, n, generator))
        return items

    def _draw_points(self, user: torch.Tensor, n: int, generator: torch.Generator) -> torch.Tensor:
        """Points (B, n) of each user's line of free items."""
        import torch

        mass = self.free_mass.index_select(0, user)[:, None]
        if self.cells is None or self.stride > MAX_32_BIT:
            uniform = torch.rand(
                (len(user), n), generator=generator, device=user.device, dtype=torch.float64
            )
            return torch.minimum(uniform.mul_(mass).long(), mass - 1)
        # Two draws of 32 bits from each random number.
        words = torch.empty((len(user) * n + 1) // 2, dtype=torch.int64).random_(
            _LEAST, None, generator=generator
        )
        bits = words.view(torch.int32)[: len(user) * n].view(-1, n)
        return bits.double().add_(2.0**31).mul_(mass * 2.0**-32).int()

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
