"""Row-wise Adam: the steps that a row missed, in closed form, beside the plain version.

Called by `training.optimiser`, which updates only the rows of a batch. Adam on the whole embedding
would also have moved every other row, by its decaying first moment.

With gradient 0 after step t, step t + k of Adam moves a row by -c(t + k) r^k m / (sqrt(v) + e_k),
where r = beta1 / sqrt(beta2), c(j) = lr sqrt(1 - beta2^j) / (1 - beta1^j) and
e_k = eps sqrt(beta2^-k - beta2^t). The sum over k is exact except for e_k. Its mean is used,
weighted by the size of the steps: an error of second order. Only some 10 steps count, in which e_k
grows by 0.5% (by more within the first steps of a training).
Source: Kingma and Ba 2015, arXiv:1412.6980, sec. 2.
"""

import math

import torch
from torch import Tensor

from recsys.kernels.adam import BETA1, BETA2, EPS

WINDOW = 256
"""Missed steps that move a row: later ones add a share of r^256 = 2e-12."""
MAX_STEPS = 4096
"""Steps between two restarts at most: they bound the memory, and a restart costs about one step on
the whole embeddings."""


class MissedSteps:
    """Steps of Adam since the last restart, which rows without a gradient have missed.

    A row is identified by `last`, the step up to which it is current. `now`: steps since the last
    restart. `displacement` (MAX_STEPS + 1,): by `last`, the sum of -c(t + k) r^k over the missed
    steps. `eps`, of the same shape: the mean of e_k over them.
    """

    def __init__(self, step: int) -> None:
        """Prepare the powers, and restart after `step` steps of Adam."""
        steps = torch.arange(MAX_STEPS + 1, dtype=torch.float64)
        self.decays = ((BETA1**steps).float(), (BETA2**steps).float())
        missed = torch.arange(WINDOW, 0, -1, dtype=torch.float64)
        self.shares = ((BETA1 / math.sqrt(BETA2)) ** missed).float()
        self.growth = BETA2**-missed
        self.restart(step)

    def restart(self, step: int) -> None:
        """Count from 0 again, with every row current after `step` steps of Adam."""
        self.now = 0
        self.start = step
        self.displacement, self.weighted_eps = torch.zeros(2, MAX_STEPS + 1)
        self.eps = torch.full((MAX_STEPS + 1,), EPS)
        steps = torch.arange(step, step + MAX_STEPS + 1, dtype=torch.float64)
        self.decayed = BETA2**steps

    def advance(self, learning_rate: float) -> None:
        """Count one more step of Adam."""
        self.now += 1
        j = self.start + self.now
        c = learning_rate * math.sqrt(1 - BETA2**j) / (1 - BETA1**j)
        missing = slice(max(0, self.now - WINDOW), self.now)
        window = slice(WINDOW - (missing.stop - missing.start), WINDOW)
        eps = (self.growth[window] - self.decayed[missing]).sqrt_().mul_(EPS).float()
        displacement = self.displacement[missing].add_(self.shares[window], alpha=-c)
        weighted_eps = self.weighted_eps[missing].addcmul_(self.shares[window], eps, value=-c)
        torch.div(weighted_eps, displacement, out=self.eps[missing])

    def catch_up(self, weight: Tensor, moment: Tensor, square: Tensor, last: Tensor) -> None:
        """Apply to rows (U, ...), in place, the steps that they missed after `last` (U,) int64.

        `moment` and `square` (U, ...) are Adam's first and second moments of `weight`.
        """
        missed = self.now - last
        shape = (-1,) + (1,) * (weight.ndim - 1)
        displacement, eps = (
            values.index_select(0, last).view(shape) for values in (self.displacement, self.eps)
        )
        decays = [values.index_select(0, missed).view(shape) for values in self.decays]
        weight.addcdiv_(moment * displacement, square.sqrt().add_(eps))
        moment.mul_(decays[0])
        square.mul_(decays[1])


class PlainMissedSteps:
    """Plain version of `MissedSteps`: one step of Adam with gradient 0 after the other.

    Source: Kingma and Ba 2015, arXiv:1412.6980, alg. 1.
    """

    def __init__(self, step: int) -> None:
        """Restart after `step` steps of Adam."""
        self.restart(step)

    def restart(self, step: int) -> None:
        """Count from 0 again, with every row current after `step` steps of Adam."""
        self.start = step
        self.learning_rates: list[float] = []

    def advance(self, learning_rate: float) -> None:
        """Count one more step of Adam."""
        self.learning_rates.append(learning_rate)

    def catch_up(self, weight: Tensor, moment: Tensor, square: Tensor, last: Tensor) -> None:
        """Apply to rows (U, ...), in place, the steps that they missed after `last` (U,) int64."""
        for row, done in enumerate(last.tolist()):
            for j, learning_rate in enumerate(self.learning_rates[done:], self.start + done + 1):
                moment[row] *= BETA1
                square[row] *= BETA2
                corrected = moment[row] / (1 - BETA1**j), square[row] / (1 - BETA2**j)
                weight[row] -= learning_rate * corrected[0] / (corrected[1].sqrt() + EPS)


def find_unique(ids: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Return the unique ids (U,), in any order, and the position of each of `ids` (n,) among them.

    `positions` (N,) int64, with all ids below N, is overwritten. Unlike `torch.unique`, this does
    not sort.
    """
    count = torch.arange(len(ids))
    # Of the places where an id occurs, one alone remains in `positions`: the one written last.
    is_last = positions.scatter_(0, ids, count).gather(0, ids) == count
    unique = ids.masked_select(is_last)
    positions.scatter_(0, unique, count[: len(unique)])
    return unique, positions.gather(0, ids)
