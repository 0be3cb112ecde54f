"""The search space: config paths with domains, sampled trial by trial (define by run).

Stands at the head of the search; `space_file` reads it from YAML.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations_with_replacement, product
from typing import Any

import optuna
from pydantic import ValidationError

from recsys.config.mistakes import describe_mistakes
from recsys.config.schema import Config, get_value, replace_values
from recsys.errors import InputError

Scalar = int | float | str | bool | None


@dataclass(frozen=True)
class Domain:
    """The values that one config path may take: `choices`, or a range from `low` to `high` (whole numbers where both are).

    `when` maps other parameters of the space to the values under which this one is sampled at all.
    """

    path: str
    choices: tuple[Scalar, ...] | None
    low: float | None
    high: float | None
    log: bool
    when: Mapping[str, tuple[Scalar, ...]]

    def suggest(self, trial: optuna.Trial, name: str) -> Scalar:
        """Sample a value for the trial, under the name that Optuna knows the domain by."""
        if self.choices is not None:
            return trial.suggest_categorical(name, self.choices)
        assert self.low is not None
        assert self.high is not None
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(name, self.low, self.high, log=self.log)
        return trial.suggest_float(name, self.low, self.high, log=self.log)

    def contains(self, value: object) -> bool:
        """Whether the domain has this value, the type included (true is not 1)."""
        if self.choices is not None:
            return any(
                value == choice and isinstance(value, bool) == isinstance(choice, bool)
                for choice in self.choices
            )
        assert self.low is not None
        assert self.high is not None
        number = (int,) if isinstance(self.low, int) else (int, float)
        return (
            isinstance(value, number)
            and not isinstance(value, bool)
            and self.low <= value <= self.high
        )

    def nearest(self, value: Any) -> Scalar:
        """The value of the domain that stands for any value of its field: itself, the nearest of a range, or the first."""
        if self.contains(value):
            found: Scalar = value
        elif self.choices is not None:
            found = self.choices[0]
        else:
            assert self.high is not None
            found = self.high if isinstance(value, (int, float)) and value > self.high else self.low
        return found

    def tree(self) -> dict[str, Any]:
        """The domain as a search-space file has it."""
        if self.choices is not None:
            tree: dict[str, Any] = {"choices": list(self.choices)}
        else:
            tree = {"low": self.low, "high": self.high, "log": self.log}
        return (
            {**tree, "when": {parent: list(values) for parent, values in self.when.items()}}
            if self.when
            else tree
        )

    @property
    def edges(self) -> tuple[Scalar, ...]:
        """Values that stand for all others when the domain is checked with another one."""
        return _ends(self.choices) if self.choices is not None else (self.low, self.high)

    def __str__(self) -> str:
        if self.choices is not None:
            return f"one of {', '.join(map(str, self.choices))}"
        return f"from {self.low:g} to {self.high:g}"


@dataclass(frozen=True)
class SearchSpace:
    """Domains, a parent before those that depend on it, and points to try first.

    Of several domains of a path the first whose condition holds is sampled.
    """

    domains: tuple[Domain, ...]
    warm_start: tuple[Mapping[str, Scalar], ...]

    def suggest(self, trial: optuna.Trial) -> dict[str, Scalar]:
        """Sample the parameters that apply to this trial."""
        values: dict[str, Scalar] = {}
        for name, domain in self.named.items():
            if domain.path not in values and _applies(domain, values):
                values[domain.path] = domain.suggest(trial, name)
        return values

    def point(self, config: Config) -> dict[str, Scalar]:
        """The point of the space that is nearest to a config (see `Domain.nearest`)."""
        return {
            path: domain.nearest(get_value(config, path))
            for path, domain in self._sampled_at(config).items()
        }

    def beside(self, config: Config) -> dict[str, Scalar]:
        """The values of a config that lie outside of a range of the space: with its point, they are the config itself."""
        own = {
            path: (domain, get_value(config, path))
            for path, domain in self._sampled_at(config).items()
        }
        return {
            path: value
            for path, (domain, value) in own.items()
            if domain.choices is None and not domain.contains(value)
        }

    def _sampled_at(self, config: Config) -> dict[str, Domain]:
        """By path, the domains that are sampled at the point of a config."""
        found: dict[str, Domain] = {}
        values: dict[str, Scalar] = {}
        for domain in self.domains:
            if domain.path not in found and _applies(domain, values):
                found[domain.path] = domain
                values[domain.path] = domain.nearest(get_value(config, domain.path))
        return found

    def by_name(self, point: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """A point as Optuna is told to try it: every domain of a path gets the path's value, if it has it."""
        found = ((name, domain) for name, domain in self.named.items() if domain.path in point)
        return {
            name: point[domain.path]
            for name, domain in found
            if domain.contains(point[domain.path])
        }

    @cached_property
    def named(self) -> dict[str, Domain]:
        """The domains by what Optuna knows them by, which allows a name one domain: the last of a path has the path's name.

        Those before it have their condition beside it, such as `model.embedding_dim [model.name=mlp|neumf]`.
        """
        last = {domain.path: domain for domain in self.domains}
        names = (d.path if d is last[d.path] else f"{d.path} {_show(d.when)}" for d in self.domains)
        return dict(zip(names, self.domains, strict=True))

    @property
    def paths(self) -> tuple[str, ...]:
        """The config paths of the space, each once."""
        return tuple(dict.fromkeys(domain.path for domain in self.domains))

    def fixed(self, paths: Iterable[str], base: Config) -> "SearchSpace":
        """The space where these paths are what `base` has: what can still be sampled, under what conditions are left."""
        decided = set(paths)
        kept: list[Domain] = []
        for domain in self.domains:
            when: dict[str, tuple[Scalar, ...]] = {}
            holds = all(
                get_value(base, parent) in allowed
                for parent, allowed in domain.when.items()
                if parent in decided
            )
            for parent, allowed in domain.when.items():
                if parent not in decided:
                    when[parent] = tuple(
                        v for v in allowed if any(d.path == parent and d.contains(v) for d in kept)
                    )
            is_reached = all(d.path != domain.path or d.when for d in kept)
            if domain.path not in decided and holds and is_reached and all(when.values()):
                kept.append(replace(domain, when=when))
        return SearchSpace(tuple(kept), tuple(_inside(kept, point) for point in self.warm_start))

    def tree(self) -> dict[str, Any]:
        """The space as a search-space file has it."""
        parameters: dict[str, Any] = {}
        for path in self.paths:
            trees = [domain.tree() for domain in self.domains if domain.path == path]
            parameters[path] = trees if len(trees) > 1 else trees[0]
        return {"parameters": parameters, "warm_start": [dict(point) for point in self.warm_start]}

    def check_with(self, base: Config) -> None:
        """Check that the edge values of any two parameters that meet in a trial make a valid config with the rest as in `base`.

        Raises:
            InputError: listing every mistake.
        """
        mistakes: dict[str, None] = {}
        # Two at a time, as the config's rules across fields are about two fields.
        for one, other in combinations_with_replacement(self.domains, 2):
            if one.path == other.path and one is not other:
                continue
            pairs = product(_edges_with(one, other), _edges_with(other, one))
            for value, other_value in (
                pairs if one is not other else ((edge, edge) for edge in one.edges)
            ):
                values = self._with_conditions(
                    {one.path: value, other.path: other_value}, [one, other]
                )
                if (
                    values is not None
                    and (found := refusals(base, values))
                    and not self._may_be_mended(values, base)
                ):
                    mistakes |= dict.fromkeys(found)
        if mistakes:
            raise InputError.listing("search space", list(mistakes))

    def _may_be_mended(self, values: dict[str, Scalar], base: Config) -> bool:
        """Whether a value of a third parameter makes them valid: the mistake, if it is one, is that of a pair with it."""
        others = (domain for domain in self.domains if domain.path not in values)
        return any(
            not refusals(base, {**values, domain.path: edge})
            for domain in others
            for edge in domain.edges
        )

    def _with_conditions(
        self, values: dict[str, Scalar], waiting: list[Domain]
    ) -> dict[str, Scalar] | None:
        """The values and what their domains, `waiting`, need to apply together, None where they never do."""
        while waiting:
            for parent, allowed in waiting.pop().when.items():
                if parent not in values:
                    values[parent] = allowed[0]
                    waiting += [
                        d for d in self.domains if d.path == parent and d.contains(allowed[0])
                    ][:1]
                if values[parent] not in allowed:
                    return None
        return values


def _ends(values: Iterable[Scalar]) -> tuple[Scalar, ...]:
    """The smallest and the largest number of some values, which the config's rules are about, and all that is no number."""
    numbers = [
        value for value in values if isinstance(value, (int, float)) and not isinstance(value, bool)
    ]
    others = (
        value for value in values if isinstance(value, bool) or not isinstance(value, (int, float))
    )
    return (*others, *dict.fromkeys([min(numbers), max(numbers)] if numbers else []))


def _edges_with(domain: Domain, other: Domain) -> tuple[Scalar, ...]:
    """The edges of a domain among the values that another one is sampled with."""
    if domain.path not in other.when:
        return domain.edges
    return _ends([value for value in other.when[domain.path] if domain.contains(value)])


def _applies(domain: Domain, values: Mapping[str, Scalar]) -> bool:
    """Whether the conditions hold; one on a parameter that does not apply itself does not."""
    return all(
        parent in values and values[parent] in allowed for parent, allowed in domain.when.items()
    )


def _inside(domains: Iterable[Domain], point: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """What of a point lies in a domain."""
    return {
        path: value
        for path, value in point.items()
        if any(d.path == path and d.contains(value) for d in domains)
    }


def _show(condition: Mapping[str, tuple[Scalar, ...]]) -> str:
    return (
        "["
        + ",".join(f"{parent}={'|'.join(map(str, values))}" for parent, values in condition.items())
        + "]"
    )


def by_path(params: Mapping[str, Any]) -> dict[str, Any]:
    """What Optuna knows by the names of domains, by config path."""
    return {name.partition(" ")[0]: value for name, value in params.items()}


def refusals(base: Config, values: Mapping[str, Scalar]) -> list[str]:
    """What the config says against these values at these paths."""
    try:
        replace_values(base, values)
    except ValidationError as error:
        return [text for _, text in describe_mistakes(error)]
    return []


def field_refusals(path: str, value: Scalar) -> list[str]:
    """What the field at a config path says against a value, whatever the other fields are."""
    try:
        replace_values(Config(), {path: value})
    except ValidationError as error:
        # The rules about several fields have no place of their own.
        return [text for _, text in describe_mistakes(error)] if error.errors()[0]["loc"] else []
    return []
