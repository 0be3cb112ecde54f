"""Sampler that proposes the point with the greatest expected improvement for its cost.

A Gaussian process over the whole space, whatever applies where, predicts the value of a point. So
trials of one variant teach something about the others, a variant that wins is searched in depth,
and one that loses is asked again once its uncertain points promise more than the winner's. Running
trials count with what is expected of them, so that concurrent proposals differ.

Source: Jones et al. 1998, Efficient Global Optimization; Snoek et al. 2012, arXiv:1206.2944,
sec. 3.2.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import optuna
import torch
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial
from torch import Tensor

from recsys.config.schema import replace_values
from recsys.search.costs.predict import Predictor
from recsys.search.record.study_record import StudyRecord
from recsys.search.sampling.candidates import candidates
from recsys.search.sampling.gaussian_process import GaussianProcess, Scales
from recsys.search.sampling.observations import Observations, observe
from recsys.search.sampling.vectors import Point, Vectors

_N_FIRST = 3
"""Trials that have to report before the process is asked."""
_N_GOOD, _N_PRICED = 5, 100
"""Best trials near which points are drawn, and candidates whose cost is predicted."""
_MAX_TRIALS = 300
"""Trials that the process sees: half of them the best, half the latest."""
_GROWTH = 1.15
"""Growth of the number of trials at which the scales are fitted again."""
_WORST = -3.0
"""Lowest value that counts, in distances from the best value down to the median."""
_SAME = 0.01
"""Distance from a tried point, as a share of a range, below which a candidate is not proposed; the
noise alone would make it promising."""
_COST_POWER = 0.5
"""Power of the seconds that the improvement is divided by: with 1, cheap points of which nothing is
known come before those near a good but dear one."""
_START_SECONDS = 0.5
"""Time of a trial besides its epochs."""


class ExpectedImprovement(optuna.samplers.BaseSampler):
    """Sampler of the trials of one record, made with the arguments of `SAMPLERS`."""

    def __init__(self, seed: int, record: StudyRecord, costs: Predictor) -> None:
        torch.set_num_threads(1)  # of the driver, whose machine the trials need
        self._rng = np.random.default_rng(seed)
        self._independent = optuna.samplers.RandomSampler(seed=seed)
        self._record, self._costs = record, costs
        self._space = record.space
        self._vectors = Vectors(self._space)
        self._scales, self._n_fitted = Scales.prior(self._vectors.width), 0

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return every domain of the space by its name in Optuna."""
        return {name: domain.distribution for name, domain in self._space.named.items()}

    def sample_relative(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        """Return a point by Optuna's names, empty while too few trials have reported."""
        known = observe(self._record, without=trial.number)
        if len(known.values) < _N_FIRST:
            return {}
        return self._space.by_name(self._propose(known))

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Return a random value."""
        return self._independent.sample_independent(study, trial, param_name, param_distribution)

    def _propose(self, known: Observations) -> Point:
        """Return the best candidate."""
        ranking = sorted(known.values, key=known.values.__getitem__, reverse=True)
        good = [known.points[number] for number in ranking[:_N_GOOD]]
        points = candidates(self._space, good, self._rng)
        vectors = self._tensor(points)
        process, best = self._process(known, ranking)
        improvement = expected_improvement(*process.predict(vectors), best)
        tried = self._tensor(list(known.points.values()))
        improvement[torch.cdist(vectors, tried).amin(dim=1) < _SAME] = 0.0
        if known.diverged:
            improvement[self._is_near_divergence(vectors, known)] = 0.0
        leading: list[int] = improvement.topk(_N_PRICED).indices.tolist()
        worth = [
            float(improvement[index]) / self._seconds(points[index]) ** _COST_POWER
            for index in leading
        ]
        return points[leading[int(np.argmax(worth))]]

    def _process(self, known: Observations, ranking: list[int]) -> tuple[GaussianProcess, float]:
        """Return the process given the trials, and the best of their values, standardised.

        `ranking`: the numbers of the trials that have reported, from the best on.
        """
        half = _MAX_TRIALS // 2
        numbers = ranking[:half] + sorted(ranking[half:])[-half:]
        observed = self._tensor([known.points[number] for number in numbers])
        values = standardised(np.array([known.values[number] for number in numbers]))
        if len(numbers) >= _GROWTH * self._n_fitted:
            self._scales, self._n_fitted = self._scales.fitted(observed, values), len(numbers)
        process, best = GaussianProcess(self._scales, observed, values), float(values.max())
        if known.silent:
            silent = self._tensor([known.points[number] for number in known.silent])
            values = torch.cat([values, process.predict(silent)[0]])
            process = GaussianProcess(self._scales, torch.cat([observed, silent]), values)
        return process, best

    def _is_near_divergence(self, vectors: Tensor, known: Observations) -> Tensor:
        """Return for each vector whether the trial with the greatest covariance diverged, (n,)."""
        numbers = [*known.values, *known.diverged]
        tried = self._tensor([known.points[number] for number in numbers])
        nearest = self._scales.kernel(vectors, tried).argmax(dim=1)
        return nearest >= len(known.values)

    def _seconds(self, point: Point) -> float:
        """Return the predicted time of a trial that trains all of its epochs."""
        config = replace_values(self._record.base, point)
        return _START_SECONDS + self._costs.predict(config).of_trial(config)

    def _tensor(self, points: Sequence[Point]) -> Tensor:
        return torch.from_numpy(self._vectors.of(points))


def standardised(values: npt.NDArray[np.float64]) -> Tensor:
    """Return values with standard deviation 1 and lower quartile 0, (n,), the lowest ones raised.

    A search is about the best values; how bad the worst are must not set the scale. The process
    takes 0 for the value of a point of which nothing is known: most trials were chosen because they
    promised much, so their mean would be too high.
    """
    best, median = values.max(), float(np.median(values))
    raised = np.maximum(values, best + _WORST * (best - median))
    deviation = raised.std()
    return torch.from_numpy(
        (raised - np.quantile(raised, 0.25)) / (deviation if deviation > 0 else 1.0)
    )


def expected_improvement(mean: Tensor, deviation: Tensor, best: float) -> Tensor:
    """Return the expected improvement of normal values over the best one, (n,)."""
    distance = (mean - best) / deviation
    density = (-distance.square() / 2).exp() / math.sqrt(2 * math.pi)
    probability: Tensor = torch.special.ndtr(distance)
    return deviation * (distance * probability + density)
