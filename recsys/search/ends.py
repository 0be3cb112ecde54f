"""The cheapest and the dearest config of a search space, and configs as trials have them.

A dry run measures the former and predicts the latter (`estimate`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import optuna

from recsys.config.schema import Config, replace_values
from recsys.data.manifest import Manifest
from recsys.search.costs.work import expected_seconds
from recsys.search.space.domains import Scalar
from recsys.search.space.search_space import SearchSpace

_N_CORNERS, _N_SAMPLED = 1000, 100


@dataclass(frozen=True)
class End:
    """The cheapest or the dearest config of a space. `point`: its values by config path."""

    point: dict[str, Scalar]
    config: Config


def find_ends(space: SearchSpace, base: Config, sizes: Manifest) -> tuple[End, End]:
    """Return the corners of the space whose epochs are expected to take least and most time.

    A corner has an end of each range that applies to it; a thousand are drawn.
    """
    trial = cast(Any, _Corner(np.random.default_rng(base.study.seed)))
    points = {tuple(space.suggest(trial).items()) for _ in range(_N_CORNERS)}
    ends = (
        End(dict(point), replace_values(base, dict(point))) for point in sorted(points, key=str)
    )
    by_time = sorted(ends, key=lambda end: _seconds_of(end.config, sizes))
    return by_time[0], by_time[-1]


def _seconds_of(config: Config, sizes: Manifest) -> float:
    seconds = expected_seconds(config, sizes)
    return seconds.train + seconds.rank


class _Corner:
    """Source of values for `Domain.suggest`: any choice, and either end of a range."""

    def __init__(self, generator: np.random.Generator) -> None:
        self._generator = generator

    def suggest_categorical(self, _name: str, choices: Sequence[Scalar]) -> Scalar:
        return choices[int(self._generator.integers(len(choices)))]

    def suggest_int(self, _name: str, low: int, high: int, *, log: bool) -> int:
        return high if self._generator.integers(2) else low

    def suggest_float(self, _name: str, low: float, high: float, *, log: bool) -> float:
        return high if self._generator.integers(2) else low


def sample_configs(space: SearchSpace, base: Config) -> Iterator[Config]:
    """Yield configs that are drawn at random from the space."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=base.study.seed))
    for _ in range(_N_SAMPLED):
        yield replace_values(base, space.suggest(study.ask()))
