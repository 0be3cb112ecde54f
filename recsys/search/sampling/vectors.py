"""Points of a search space as vectors, between which distances mean something.

A number becomes its position in the range of its path, from 0 to 1, in logarithms if the range is
sampled so. A choice becomes one value for each choice, so that two different ones are 1 apart. A
number that a point lacks is in the middle; a choice that it lacks is 0 everywhere. None is at the
upper end of a range.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Protocol

import numpy as np
import numpy.typing as npt

from recsys.search.space.domains import Domain, Scalar
from recsys.search.space.search_space import SearchSpace

Point = Mapping[str, Scalar]
_OF_CHOICE = math.sqrt(0.5)


class _Axis(Protocol):
    def values(self, value: Scalar) -> tuple[float, ...]:
        """Return the part of a vector for a value."""

    absent: tuple[float, ...]
    """The part for a point without a value."""


class Vectors:
    """The vectors of the points of a space, (n_points, `width`)."""

    def __init__(self, space: SearchSpace) -> None:
        self._axes = {
            path: _axis_of([domain for domain in space.domains if domain.path == path])
            for path in space.paths
        }
        self.width = sum(len(axis.absent) for axis in self._axes.values())

    def of(self, points: Iterable[Point]) -> npt.NDArray[np.float64]:
        """Return the vectors of points. A value outside of the space has the nearest edge's."""
        rows = [
            [
                number
                for path, axis in self._axes.items()
                for number in (axis.values(point[path]) if path in point else axis.absent)
            ]
            for point in points
        ]
        return np.array(rows, dtype=np.float64).reshape(len(rows), self.width)


class _Range:
    absent: tuple[float, ...] = (0.5,)

    def __init__(self, low: float, high: float, *, log: bool, has_none: bool) -> None:
        self._low, self._high = low, high
        self._has_none = has_none
        self._scale = math.log if log else float

    def values(self, value: Scalar) -> tuple[float, ...]:
        if value is None and not self._has_none:
            value = self._high  # as `Domain.nearest` has it
        if value is None or isinstance(value, (bool, str)):
            return self.absent  # one of the choices of another domain of the path
        low, high = self._scale(self._low), self._scale(self._high)
        inside = min(max(value, self._low), self._high)
        return ((self._scale(inside) - low) / (high - low) if high > low else 0.5,)


class _Choices:
    def __init__(self, choices: Iterable[Scalar]) -> None:
        self._choices = tuple(dict.fromkeys((type(choice), choice) for choice in choices))
        self.absent: tuple[float, ...] = (0.0,) * len(self._choices)

    def values(self, value: Scalar) -> tuple[float, ...]:
        return tuple(
            _OF_CHOICE if choice == (type(value), value) else 0.0 for choice in self._choices
        )


def _axis_of(domains: list[Domain]) -> _Axis:
    """Return the axis of the domains of a path: of choices, if none of them is a range."""
    ranges = [domain for domain in domains if domain.choices is None]
    if not ranges:
        return _Choices(choice for domain in domains for choice in domain.choices or ())
    numbers = [edge for domain in ranges for edge in domain.edges if isinstance(edge, (int, float))]
    return _Range(
        min(numbers),
        max(numbers),
        log=all(domain.log for domain in ranges),
        has_none=any(None in (domain.choices or ()) for domain in domains),
    )
