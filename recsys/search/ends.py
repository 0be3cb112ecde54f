"""The cheapest and the dearest config of a search space, and configs as trials have them.

A dry run measures the former and predicts the latter (`estimate`).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import optuna

from recsys.config.schema import Config, replace_values
from recsys.data.manifest import Manifest
from recsys.search.costs.work import expected_seconds
from recsys.search.space.domains import Domain, Scalar
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
    rng = np.random.default_rng(base.study.seed)
    corners = (space.fill(lambda _, domain: _end_of(domain, rng)) for _ in range(_N_CORNERS))
    points = {tuple(corner.items()) for corner in corners}
    ends = (
        End(dict(point), replace_values(base, dict(point))) for point in sorted(points, key=str)
    )
    by_time = sorted(ends, key=lambda end: _seconds_of(end.config, sizes))
    return by_time[0], by_time[-1]


def _seconds_of(config: Config, sizes: Manifest) -> float:
    seconds = expected_seconds(config, sizes)
    return seconds.train + seconds.rank


def _end_of(domain: Domain, rng: np.random.Generator) -> Scalar:
    """Return any choice, or either end of a range."""
    if domain.choices is not None:
        return domain.choices[int(rng.integers(len(domain.choices)))]
    return domain.edges[int(rng.integers(2))]


def sample_configs(space: SearchSpace, base: Config) -> Iterator[Config]:
    """Yield configs that are drawn at random from the space."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=base.study.seed))
    for _ in range(_N_SAMPLED):
        yield replace_values(base, space.suggest(study.ask()))
