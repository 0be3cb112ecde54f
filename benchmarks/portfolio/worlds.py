"""Worlds: what a config reaches on a data set, between and beyond the recorded runs.

A world is drawn from a Gaussian process given the recorded scores: where the table has runs it is
near them, elsewhere it is as uncertain as the table leaves it, so that a search may find better
configs than the recorded ones. A value that was drawn is drawn only once: later ones are given it.
The course of a run and its seconds are the process's means.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.portfolio.pruning import Curve
from recsys.search.sampling.gaussian_process import GaussianProcess, Scales
from recsys.search.sampling.vectors import Vectors
from recsys.search.space.search_space import SearchSpace

_LOWEST = -3.0
"""Lowest score that counts: three times as far below the best as the median is, and further."""
_N_FITS = 4
_GAIN_EPOCHS = np.array([1, 4, 12, 20])
"""Epochs after which the score that a run still gains is expected; between them it is interpolated
over the logarithm of the epochs."""


@dataclass(frozen=True)
class _Target:
    """Gaussian process of one figure of a run, (n,) of the table, with its mean and deviation."""

    scales: Scales
    points: torch.Tensor
    values: torch.Tensor
    mean: float
    deviation: float

    @classmethod
    def fit(cls, points: torch.Tensor, figures: npt.NDArray[np.float64]) -> Self:
        mean, deviation = float(figures.mean()), float(figures.std()) or 1.0
        values = torch.from_numpy((figures - mean) / deviation)
        scales = Scales.prior(points.shape[1])
        for _ in range(_N_FITS):
            scales = scales.fitted(points, values)
        return cls(scales, points, values, mean, deviation)

    @cached_property
    def _process(self) -> GaussianProcess:
        return GaussianProcess(self.scales, self.points, self.values)

    def expect(self, vector: torch.Tensor) -> float:
        mean, _ = self._process.predict(vector)
        return self.mean + self.deviation * float(mean[0])

    def draw(self, vector: torch.Tensor, rng: np.random.Generator) -> tuple[float, Self]:
        """Return a drawn figure, and the process given it."""
        mean, deviation = self._process.predict(vector)
        value = mean + deviation * rng.normal()
        points, values = torch.cat([self.points, vector]), torch.cat([self.values, value])
        given = type(self)(self.scales, points, values, self.mean, self.deviation)
        return self.mean + self.deviation * float(value[0]), given


class World:
    """A world of one data set."""

    def __init__(
        self,
        space: SearchSpace,
        configs: Sequence[Mapping[str, Any]],
        curves: Mapping[int, Curve],
        seed: int,
    ) -> None:
        """Fit the processes.

        Args:
            space: the space of the configs.
            configs: the configs of the table, by number.
            curves: their runs on the data set, as scores.
            seed: of the draws.
        """
        self._vectors, self._rng = Vectors(space), np.random.default_rng(seed)
        points = torch.from_numpy(self._vectors.of([configs[number] for number in curves]))
        values = np.stack([curve.values for curve in curves.values()])
        best = np.maximum(values.max(axis=1), _LOWEST)
        gains = np.clip(best[:, None] - values, 0.0, None)[:, _GAIN_EPOCHS - 1]
        seconds = np.log([curve.seconds[-1] / len(curve.seconds) for curve in curves.values()])
        self._best = _Target.fit(points, best)
        self._gains = [_Target.fit(points, column) for column in gains.T]
        self._seconds = _Target.fit(points, seconds)

    def run(self, config: Mapping[str, Any], n_epochs: int) -> Curve:
        """Return the scores and the seconds of a run, both (n_epochs,)."""
        vector = torch.from_numpy(self._vectors.of([config]))
        best, self._best = self._best.draw(vector, self._rng)
        gains = [max(0.0, target.expect(vector)) for target in self._gains]
        epochs = np.arange(1.0, n_epochs + 1)
        left = np.interp(np.log(epochs), np.log(_GAIN_EPOCHS), gains)
        return Curve(best - left, self.seconds(config) * epochs)

    def seconds(self, config: Mapping[str, Any]) -> float:
        """Return the time of an epoch."""
        vector = torch.from_numpy(self._vectors.of([config]))
        return float(np.exp(self._seconds.expect(vector)))
