"""Gaussian process over vectors, whose scales follow from the observed values.

Matérn kernel of order 5/2 with a length scale for each dimension. Length scales, variance and noise
are the most probable ones: with few observations their priors decide, later the values do.

Source: Rasmussen and Williams 2006, Gaussian Processes for Machine Learning, algorithm 2.1 and
sec. 5.4.1.
"""

import math
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from recsys.kernels.adam import Adam

_PRIOR_LENGTH, _SPREAD_OF_LENGTH = math.log(1.5), 1.7
_PRIOR_NOISE = math.log(0.05)
"""Means and standard deviation of the logarithms; those of the variance and the noise have standard
deviation 1, and that of the variance mean 0."""
_STEPS, _LEARNING_RATE = 30, 0.1
_JITTER = 1e-8


@dataclass(frozen=True)
class Scales:
    """Logarithms of the length scales, (width,), the variance and the noise variance."""

    length: Tensor
    variance: Tensor
    noise: Tensor

    @classmethod
    def prior(cls, width: int) -> Self:
        """Return the most probable scales before anything was observed."""
        length = torch.full((width,), _PRIOR_LENGTH, dtype=torch.float64)
        variance = torch.zeros((), dtype=torch.float64)
        return cls(length, variance, torch.full_like(variance, _PRIOR_NOISE))

    def fitted(self, points: Tensor, values: Tensor) -> "Scales":
        """Return more probable scales by gradient ascent from these.

        Args:
            points: the observed points, (n, width).
            values: their values, (n,), of standard deviation 1; 0 is the mean of the process.
        """
        free = nn.ParameterList(
            nn.Parameter(tensor.clone()) for tensor in (self.length, self.variance, self.noise)
        )
        scales, optimiser = Scales(*free), Adam.start(free, _LEARNING_RATE)
        for _ in range(_STEPS):
            optimiser.zero_grad()
            loss = -scales._log_probability(points, values)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        return Scales(*(tensor.detach() for tensor in free))

    def kernel(self, some: Tensor, others: Tensor) -> Tensor:
        """Return the covariances of the values at two sets of points, (n_some, n_others)."""
        length = self.length.exp()
        square = ((some[:, None] - others[None]) / length).square().sum(dim=-1)
        distance = (5 * square + _JITTER).sqrt()
        return self.variance.exp() * (1 + distance + distance.square() / 3) * (-distance).exp()

    def factor(self, points: Tensor) -> Tensor:
        """Return the Cholesky factor of the covariance of noisy values, (n, n)."""
        identity = torch.eye(len(points), dtype=torch.float64)
        noise = self.noise.exp() + _JITTER
        factor: Tensor = torch.linalg.cholesky(self.kernel(points, points) + noise * identity)
        return factor

    def _log_probability(self, points: Tensor, values: Tensor) -> Tensor:
        """Return the logarithm of the posterior density, up to a constant."""
        factor = self.factor(points)
        weights = torch.cholesky_solve(values[:, None], factor)[:, 0]
        likelihood = -values @ weights / 2 - factor.diagonal().log().sum()
        deviations = ((self.length - _PRIOR_LENGTH) / _SPREAD_OF_LENGTH).square().sum()
        others = self.variance.square() + (self.noise - _PRIOR_NOISE).square()
        return likelihood - (deviations + others) / 2


class GaussianProcess:
    """Posterior of the function that has noisy values at some points."""

    def __init__(self, scales: Scales, points: Tensor, values: Tensor) -> None:
        self._scales, self._points = scales, points
        self._factor = scales.factor(points)
        self._weights = torch.cholesky_solve(values[:, None], self._factor)[:, 0]

    def predict(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean and the standard deviation of the function at points, both (n,)."""
        covariance = self._scales.kernel(points, self._points)
        explained = torch.linalg.solve_triangular(self._factor, covariance.T, upper=False)
        variance = self._scales.variance.exp() - explained.square().sum(dim=0)
        return covariance @ self._weights, variance.clamp(min=_JITTER).sqrt()
