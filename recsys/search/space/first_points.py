"""Points that a search starts with: the warm starts of its space, and its base config."""

from collections.abc import Mapping

from recsys.config.schema import Config, get_value
from recsys.search.space.domains import Scalar
from recsys.search.space.search_space import SearchSpace
from recsys.search.space.validity import refusals

Point = Mapping[str, Scalar]


def first_points(space: SearchSpace, base: Config) -> list[tuple[Point, Point]]:
    """Return the points in their order, each once, with its values outside of the space.

    The warm starts come first: they are ordered, the best first. The base config precedes them if
    a config file has replaced a default of it that the space searches. It keeps its values outside
    of the space, unless they are invalid beside a choice of the space that replaces one of its own.
    """
    point, outside = space.point(base), space.outside_values(base)
    if refusals(base, point | outside):
        outside = {}
    points: list[tuple[Point, Point]] = [(warm_start, {}) for warm_start in space.warm_start]
    points.insert(0 if base_is_first(space, base) else len(points), (point, outside))
    return [first for number, first in enumerate(points) if first not in points[:number]]


def base_is_first(space: SearchSpace, base: Config) -> bool:
    """Return whether the base config precedes the warm starts: someone has chosen it."""
    defaults = Config()
    return any(get_value(base, path) != get_value(defaults, path) for path in space.paths)
