"""Normalised regret of searches, and bootstrap intervals of its mean and of ratios of means."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.search_quality.outcome import Outcome

FloatArray = npt.NDArray[np.float64]
N_RESAMPLES = 10_000


@dataclass(frozen=True)
class Scale:
    """Scale of a data set's values: regret is 0 at `best` and 1 at `popular`.

    `best`: the best value that any search on the data set found. `popular`: the value of most
    popular items, which anybody has without a search, and which does not depend on the systems that
    are compared.
    """

    best: float
    popular: float

    def regret(self, value: float | None) -> float:
        """Return the normalised regret of a value; None for a search that has nothing yet.

        It is at most 1, because most popular items remain to a search that finds nothing better.
        """
        if value is None or value <= self.popular:
            return 1.0
        return (self.best - value) / (self.best - self.popular)


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95% bootstrap interval."""

    estimate: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.estimate:.3f} ({self.low:.3f} to {self.high:.3f})"


Regrets = Mapping[str, Mapping[int, float]]
"""Regrets of one system with one budget, by data set and seed."""


def regrets_of(
    outcomes: Iterable[Outcome], scales: Mapping[str, Scale], seconds: float | None = None
) -> Regrets:
    """Return the regrets of one system's searches with one budget.

    They are those of the searches' answers or, if `seconds` is given, those after that time.
    """
    regrets: dict[str, dict[int, float]] = {}
    for outcome in outcomes:
        value = outcome.value if seconds is None else outcome.value_at(seconds)
        data, seed = outcome.search.data, outcome.search.seed
        regrets.setdefault(data, {})[seed] = scales[data].regret(value)
    return regrets


def scales_of(outcomes: Iterable[Outcome], popular: Mapping[str, float]) -> dict[str, Scale]:
    """Return the scale of each data set, by all searches on it."""
    best = dict(popular)
    for outcome in outcomes:
        for _, value in outcome.curve:
            best[outcome.search.data] = max(best[outcome.search.data], value)
    return {name: Scale(best[name], popular[name]) for name in popular}


def mean_regret(regrets: Regrets) -> float:
    """Return the mean over the data sets of the mean over the seeds."""
    return float(np.mean([np.mean(list(seeds.values())) for seeds in regrets.values()]))


def common_pairs(first: Regrets, second: Regrets) -> tuple[Regrets, Regrets]:
    """Return the regrets of the data sets and seeds that both systems have."""
    both = {name: first[name].keys() & second[name].keys() for name in first.keys() & second.keys()}
    names = [name for name in sorted(both) if both[name]]

    def kept(regrets: Regrets) -> Regrets:
        return {name: {seed: regrets[name][seed] for seed in sorted(both[name])} for name in names}

    return kept(first), kept(second)


def mean_interval(regrets: Regrets) -> Interval:
    """Return the mean regret with its interval."""
    means = _resampled_means([regrets])[:, 0]
    return Interval(mean_regret(regrets), *_ends(means))


def ratio_interval(numerator: Regrets, denominator: Regrets) -> Interval:
    """Return the ratio of two systems' mean regrets on the pairs that both have.

    Each resample draws the same data sets and seeds for both.
    """
    pair = common_pairs(numerator, denominator)
    above, below = (np.array([mean_regret(regrets)]) for regrets in pair)
    means = _resampled_means(pair)
    return Interval(float(_ratio(above, below)[0]), *_ends(_ratio(means[:, 0], means[:, 1])))


def _resampled_means(systems: Sequence[Regrets]) -> FloatArray:
    """Return the mean regrets (N_RESAMPLES, n_systems) of resampled data sets and seeds.

    A resample draws as many data sets as there are, and for each of them as many of its seeds, both
    with replacement. All systems must have the same data sets and seeds.
    """
    rng = np.random.default_rng(0)
    tables = [  # (n_seeds, n_systems), one for each data set
        np.array([[regrets[name][seed] for regrets in systems] for seed in systems[0][name]])
        for name in systems[0]
    ]
    drawn = rng.integers(len(tables), size=(N_RESAMPLES, len(tables)))
    total = np.zeros((N_RESAMPLES, len(systems)))
    for column in drawn.T:
        for number, table in enumerate(tables):
            rows = np.flatnonzero(column == number)
            seeds = rng.integers(len(table), size=(len(rows), len(table)))
            total[rows] += table[seeds].mean(axis=1)
    return total / len(tables)


def _ratio(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    """Return the ratios (n,); 1 where both are 0."""
    ratio = np.where(numerator > 0, np.inf, 1.0)
    return np.divide(numerator, denominator, out=ratio, where=denominator > 0)


def _ends(values: FloatArray) -> tuple[float, float]:
    low, high = np.quantile(values, (0.025, 0.975), method="nearest")
    return float(low), float(high)
