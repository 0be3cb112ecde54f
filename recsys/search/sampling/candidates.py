"""Points that a sampler chooses from: some drawn from the whole space, some near good ones."""

import math
from collections.abc import Sequence

import numpy as np

from recsys.search.sampling.vectors import Point
from recsys.search.space.domains import Domain, Scalar
from recsys.search.space.search_space import SearchSpace

N_DRAWN, N_NEAR = 200, 200
_SCALES = (0.03, 0.1, 0.25)
"""Standard deviations of a change, as shares of a range."""
_P_NUMBER, _P_CHOICE = 0.6, 0.1
"""Probabilities that a number and a choice of a good point are changed."""
_P_BEST = 0.4
"""Probability that a point is near the best, near the second if it is not, and so on."""


def candidates(
    space: SearchSpace, good: Sequence[Point], rng: np.random.Generator
) -> list[dict[str, Scalar]]:
    """Return random points; `good`: those to draw near, from the best on."""
    drawn = [space.fill(lambda _, domain: draw(domain, rng)) for _ in range(N_DRAWN)]
    if good:
        drawn += [_near_one(space, good, rng) for _ in range(N_NEAR)]
    return drawn


def _near_one(
    space: SearchSpace, good: Sequence[Point], rng: np.random.Generator
) -> dict[str, Scalar]:
    center = good[min(int(rng.geometric(_P_BEST)) - 1, len(good) - 1)]
    scale = float(rng.choice(_SCALES))

    def value_of(_: str, domain: Domain) -> Scalar:
        if domain.path not in center:
            return draw(domain, rng)
        probability = _P_NUMBER if domain.choices is None else _P_CHOICE
        start = domain.nearest(center[domain.path])
        return change(domain, start, scale, rng) if rng.random() < probability else start

    return space.fill(value_of)


def draw(domain: Domain, rng: np.random.Generator) -> Scalar:
    """Return a random value of a domain, uniform or log-uniform."""
    if domain.choices is not None:
        return domain.choices[rng.integers(len(domain.choices))]
    low, high = _ends(domain)
    return _value(domain, rng.uniform(low, high))


def change(domain: Domain, value: Scalar, scale: float, rng: np.random.Generator) -> Scalar:
    """Return a value near another one; of choices, any."""
    if domain.choices is not None:
        return draw(domain, rng)
    assert isinstance(value, (int, float))
    low, high = _ends(domain)
    start = math.log(value) if domain.log else value
    return _value(domain, start + scale * (high - low) * rng.normal())


def _ends(domain: Domain) -> tuple[float, float]:
    """Return the ends of a range, as logarithms if it is sampled so."""
    assert domain.low is not None
    assert domain.high is not None
    if domain.log:
        return math.log(domain.low), math.log(domain.high)
    return float(domain.low), float(domain.high)


def _value(domain: Domain, position: float) -> int | float:
    """Return the value of a range at a position between its ends, or the nearest end."""
    assert domain.low is not None
    assert domain.high is not None
    value = math.exp(position) if domain.log else position
    inside = min(max(value, domain.low), domain.high)
    is_whole = isinstance(domain.low, int) and isinstance(domain.high, int)
    return round(inside) if is_whole else float(inside)
