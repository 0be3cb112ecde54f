"""Search space: domains by config path, sampled trial by trial, and the points to try first.

Read from YAML by `space_file`, and used by the record, which samples each trial's parameters.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import optuna

from recsys.config.schema import Config, get_value
from recsys.search.space.domains import Domain, Scalar


@dataclass(frozen=True)
class SearchSpace:
    """Domains, a parent before those that depend on it, and points to try first.

    Of several domains of a path a trial samples the first whose condition holds.
    """

    domains: tuple[Domain, ...]
    warm_start: tuple[Mapping[str, Scalar], ...]

    def suggest(self, trial: optuna.Trial) -> dict[str, Scalar]:
        """Sample the parameters that apply to this trial."""
        return self.fill(lambda name, domain: domain.suggest(trial, name))

    def fill(self, value_of: Callable[[str, Domain], Scalar]) -> dict[str, Scalar]:
        """Return a point: the value of each domain that applies to it, by path.

        `value_of` returns the value of a domain, which has a name in Optuna.
        """
        values: dict[str, Scalar] = {}
        for name, domain in self.named.items():
            if domain.path not in values and domain.applies(values):
                values[domain.path] = value_of(name, domain)
        return values

    def point(self, config: Config) -> dict[str, Scalar]:
        """Return the point of the space that is nearest to a config (see `Domain.nearest`)."""
        return {
            path: domain.nearest(get_value(config, path))
            for path, domain in self._sampled_at(config).items()
        }

    def outside_values(self, config: Config) -> dict[str, Scalar]:
        """Return the values of a config outside of the ranges that are sampled at its point.

        With them, the point is the config itself, unless a choice replaces one of its values.
        """
        return {
            path: get_value(config, path)
            for path, domain in self._sampled_at(config).items()
            if domain.choices is None and not domain.contains(get_value(config, path))
        }

    def _sampled_at(self, config: Config) -> dict[str, Domain]:
        """Return the domains that are sampled at the point of a config, by path."""
        sampled: dict[str, Domain] = {}
        values: dict[str, Scalar] = {}
        for domain in self.domains:
            if domain.path not in sampled and domain.applies(values):
                sampled[domain.path] = domain
                values[domain.path] = domain.nearest(get_value(config, domain.path))
        return sampled

    def by_name(self, point: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """Return a point by Optuna's names, with every domain of a path that contains its value."""
        return {
            name: point[domain.path]
            for name, domain in self.named.items()
            if domain.path in point and domain.contains(point[domain.path])
        }

    @cached_property
    def named(self) -> dict[str, Domain]:
        """The domains by their names in Optuna, where a name has one domain.

        The last domain of a path has the path's name. The earlier ones have their condition in it,
        such as `model.embedding_dim [model.name=mlp|neumf]`.
        """
        last = {domain.path: domain for domain in self.domains}
        names = (
            d.path if d is last[d.path] else f"{d.path} {_condition_text(d.when)}"
            for d in self.domains
        )
        named: dict[str, Domain] = {}
        for name, domain in zip(names, self.domains, strict=True):
            named.setdefault(name, domain)  # a later one of the same condition is never reached
        return named

    @property
    def paths(self) -> tuple[str, ...]:
        """The config paths of the space, each once."""
        return tuple(dict.fromkeys(domain.path for domain in self.domains))

    def fixed(self, paths: Iterable[str], base: Config) -> "SearchSpace":
        """Return the space with the values of `base` at these paths.

        It has the domains that can still be sampled, under the conditions that can still vary, and
        each distinct warm start once.
        """
        fixed_paths = set(paths)
        kept: list[Domain] = []
        for domain in self.domains:
            holds = all(
                get_value(base, parent) in allowed
                for parent, allowed in domain.when.items()
                if parent in fixed_paths
            )
            when = {
                parent: tuple(value for value in allowed if _has(kept, parent, value))
                for parent, allowed in domain.when.items()
                if parent not in fixed_paths
            }
            is_reached = all(d.path != domain.path or d.when for d in kept)
            if domain.path not in fixed_paths and holds and is_reached and all(when.values()):
                kept.append(replace(domain, when=when))
        points: list[Mapping[str, Scalar]] = []
        for point in self.warm_start:
            left = {path: value for path, value in point.items() if _has(kept, path, value)}
            if left and left not in points:
                points.append(left)
        return SearchSpace(tuple(kept), tuple(points))

    def tree(self) -> dict[str, Any]:
        """Return the space as a search-space file has it."""
        parameters: dict[str, Any] = {}
        for path in self.paths:
            trees = [domain.tree() for domain in self.domains if domain.path == path]
            parameters[path] = trees if len(trees) > 1 else trees[0]
        return {"parameters": parameters, "warm_start": [dict(point) for point in self.warm_start]}


def _has(domains: Iterable[Domain], path: str, value: Scalar) -> bool:
    """Return whether a domain of this path contains the value."""
    return any(domain.path == path and domain.contains(value) for domain in domains)


def _condition_text(condition: Mapping[str, tuple[Scalar, ...]]) -> str:
    parents = (f"{parent}={'|'.join(map(str, values))}" for parent, values in condition.items())
    return f"[{','.join(parents)}]"


def by_path(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return Optuna's parameters, by the names of domains, by config path."""
    return {name.partition(" ")[0]: value for name, value in params.items()}
