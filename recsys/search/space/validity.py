"""Validity of a search space's values in a config, so that every trial's config is valid.

The config itself decides; its rules across fields are about two fields, so pairs are checked.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations_with_replacement, product

from pydantic import ValidationError

from recsys.config.mistakes import describe_mistakes
from recsys.config.schema import Config, replace_values
from recsys.errors import InputError
from recsys.search.space.domains import Domain, Scalar
from recsys.search.space.search_space import SearchSpace


def require_valid(space: SearchSpace, base: Config) -> None:
    """Check the edge values of every two parameters that a trial has together, within `base`.

    Raises:
        InputError: listing every mistake.
    """
    mistakes: dict[str, None] = {}
    always = _values_of_every_trial(space)
    for first, second in combinations_with_replacement(space.domains, 2):
        for pair in _values_of_pair(space, first, second):
            values = {**always, **pair}
            found = refusals(base, values)
            if found and not _is_valid_with_a_third(space, values, base):
                mistakes |= dict.fromkeys(found)
    if mistakes:
        raise InputError.listing("search space", list(mistakes))


def _values_of_every_trial(space: SearchSpace) -> dict[str, Scalar]:
    """Return the values that all trials have: of paths with a single domain of one choice."""
    n_domains = Counter(domain.path for domain in space.domains)
    return {
        domain.path: domain.choices[0]
        for domain in space.domains
        if domain.choices is not None and len(domain.choices) == 1
        if not domain.when and n_domains[domain.path] == 1
    }


def _values_of_pair(
    space: SearchSpace, first: Domain, second: Domain
) -> Iterator[dict[str, Scalar]]:
    """Yield the edge values of two domains, or of one, with the values that their conditions need.

    Pairs that no trial has together are left out.
    """
    if first is second:
        pairs = [(edge, edge) for edge in first.edges]
    elif first.path == second.path:
        return
    else:
        pairs = list(product(first.edges_under(second), second.edges_under(first)))
    for value, other_value in pairs:
        values = {first.path: value, second.path: other_value}
        complete = _with_conditions(space, values, [first, second])
        if complete is not None:
            yield complete


def _is_valid_with_a_third(space: SearchSpace, values: dict[str, Scalar], base: Config) -> bool:
    """Return whether a value of a third parameter makes the values valid.

    Then the pair itself is no mistake: a value of the third parameter in `base` refuses it.
    """
    others = [domain for domain in space.domains if domain.path not in values]
    points = (
        _with_conditions(space, {**values, domain.path: edge}, [domain])
        for domain in others
        for edge in domain.edges
    )
    return any(point is not None and not refusals(base, point) for point in points)


def _with_conditions(
    space: SearchSpace, values: dict[str, Scalar], waiting: list[Domain]
) -> dict[str, Scalar] | None:
    """Add the values under which the `waiting` domains apply together; None if they never do."""
    while waiting:
        for parent, allowed in waiting.pop().when.items():
            if parent not in values:
                others = [domain.when[parent] for domain in waiting if parent in domain.when]
                common = [value for value in allowed if all(value in other for other in others)]
                values[parent] = value = (common or allowed)[0]
                waiting += [d for d in space.domains if d.path == parent and d.contains(value)][:1]
            if values[parent] not in allowed:
                return None
    return values


def combinations(space: SearchSpace, paths: Iterable[str]) -> list[dict[str, Scalar]]:
    """Return the values that a trial may have together at `paths` and those they depend on.

    A range has its ends and the values that conditions name.
    """
    needed = set(paths)
    for domain in reversed(space.domains):  # a parent precedes those that depend on it
        if domain.path in needed:
            needed |= domain.when.keys()
    points: list[dict[str, Scalar]] = [{}]
    for domain in (domain for domain in space.domains if domain.path in needed):
        named = [value for other in space.domains for value in other.when.get(domain.path, ())]
        values = dict.fromkeys([*(domain.choices or domain.edges), *filter(domain.contains, named)])
        extended: list[dict[str, Scalar]] = []
        for point in points:
            is_sampled = domain.path not in point and domain.applies(point)
            extended += [{**point, domain.path: v} for v in values] if is_sampled else [point]
        points = extended
    return points


def refusals(base: Config, values: Mapping[str, Scalar]) -> list[str]:
    """Return the mistakes of a config with these values at these paths."""
    try:
        replace_values(base, values)
    except ValidationError as error:
        return [text for _, text in describe_mistakes(error)]
    return []


def field_refusals(path: str, value: Scalar) -> list[str]:
    """Return the mistakes of a value in the field at a config path, whatever the other fields."""
    try:
        replace_values(Config(), {path: value})
    except ValidationError as error:
        # Rules across fields have no location.
        return [text for _, text in describe_mistakes(error)] if error.errors()[0]["loc"] else []
    return []
