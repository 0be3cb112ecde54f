"""Search-space files: YAML read as a `SearchSpace`, with every mistake of a file listed at once.

Each domain is checked against the type and the bounds of its config field, so that all sampled
values make a valid config.
"""

from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from recsys.config.files import read_yaml
from recsys.config.mistakes import suggestion
from recsys.config.schema import Config, get_value
from recsys.console.verbosity import note
from recsys.errors import InputError
from recsys.search.space.domain_rules import form_mistake, make_domain, value_mistakes
from recsys.search.space.domains import Domain, Scalar
from recsys.search.space.search_space import SearchSpace
from recsys.search.space.validity import require_valid

MAX_DOMAINS = 50


def read_space(path: Path) -> SearchSpace:
    """Read a search-space file.

    Raises:
        InputError: if there is no such file; listing every mistake of the file.
    """
    return parse_space(read_yaml(path), str(path))


def read_effective_space(file: Path, config: Config, fixed_paths: Iterable[str]) -> SearchSpace:
    """Read the space of a file without the paths that the user fixed.

    Prints a note on standard error for each of these paths.

    Raises:
        InputError: if there is no such file; listing every mistake; if no parameter remains.
    """
    space = read_space(file)
    fixed_paths = set(fixed_paths)
    removed = [path for path in space.paths if path in fixed_paths]
    space = space.fixed(removed, config)
    if not space.domains:
        raise InputError(
            file,
            "must leave a parameter to search",
            "all set",
            "Leave one of them unset, or train this config with recsys.train.",
        )
    require_valid(space, config)
    for path in removed:
        note(f"note: {path} is set to {get_value(config, path)} and is not searched.")
    return space


def parse_space(tree: Mapping[str, Any], place: str) -> SearchSpace:
    """Return the space of a mapping with `parameters` and, if any, `warm_start`.

    Raises:
        InputError: listing every mistake.
    """
    return _SpaceReader(tree).read(place)


class _SpaceReader:
    """Reader of one file, which collects its domains and its mistakes."""

    def __init__(self, tree: Mapping[str, Any]) -> None:
        self.tree = tree
        self.domains: dict[str, list[Domain]] = {}
        self.mistakes: list[str] = []

    @cached_property
    def parameters(self) -> Mapping[str, Any]:
        found = self.tree.get("parameters")
        if isinstance(found, Mapping) and found:
            return {str(path): domain for path, domain in found.items()}
        self.mistakes.append(
            f"parameters: must map config paths to domains, but got {found!r:.40}. "
            "See the README's example."
        )
        return {}

    def read(self, place: str) -> SearchSpace:
        for name in (name for name in self.tree if name not in ("parameters", "warm_start")):
            self.mistakes.append(
                f"{name}: must be parameters or warm_start, but got another name. "
                "Correct or remove it."
            )
        lists = {
            path: given if isinstance(given, list) and given else [given]
            for path, given in self.parameters.items()
        }
        if (n_domains := sum(map(len, lists.values()))) > MAX_DOMAINS:
            raise InputError(
                place,
                f"parameters: must have at most {MAX_DOMAINS} domains",
                f"{n_domains:,}",
                "Remove some.",
            )
        for path, domains in lists.items():
            for domain in domains:
                self._read_domain(path, domain)
        ordered = self._order_by_condition()
        self._check_conditions(ordered)
        points = self._read_warm_start(ordered)
        if self.mistakes:
            raise InputError.listing(place, self.mistakes)
        return SearchSpace(
            tuple(domain for domains in ordered.values() for domain in domains), points
        )

    def _read_domain(self, path: str, given: Any) -> None:
        mistake = form_mistake(path, given)
        if mistake is not None:
            self.mistakes.append(mistake)
            return
        when = self._read_condition(path, given.get("when", {}))
        mistakes = value_mistakes(path, given)
        self.mistakes += dict.fromkeys(mistakes)
        if not mistakes:
            self.domains.setdefault(path, []).append(make_domain(path, given, when))

    def _read_condition(self, path: str, given: Any) -> dict[str, tuple[Scalar, ...]]:
        if not isinstance(given, Mapping) or [] in given.values():
            self.mistakes.append(
                f"{path}: when must map parameters to values, but got {given!r:.40}. "
                "Write {model.name: [mlp]}."
            )
            return {}
        condition = {
            str(parent): tuple(v) if isinstance(v, list) else (v,) for parent, v in given.items()
        }
        for parent in condition:
            if parent == path:
                self.mistakes.append(
                    f"{path}: when must name another parameter, but got the parameter itself. "
                    "Remove it."
                )
            elif parent not in self.parameters:
                remedy = suggestion(parent, self.parameters)
                self.mistakes.append(
                    f"{path}: when must name a parameter of this file, but got {parent}. {remedy}"
                )
        return condition

    def _order_by_condition(self) -> dict[str, list[Domain]]:
        """Return the domains by path, a parent before those that depend on it."""
        ordered: dict[str, list[Domain]] = {}
        waiting = dict(self.domains)
        parents = {
            path: {parent for domain in domains for parent in domain.when}
            for path, domains in waiting.items()
        }
        while ready := [path for path in waiting if not parents[path] & waiting.keys()]:
            for path in ready:
                ordered[path] = waiting.pop(path)
        for path in waiting:
            if path not in parents[path]:  # `_read_condition` has reported a condition on itself
                self.mistakes.append(
                    f"{path}: when must not lead back to itself, but got a circle. "
                    "Remove one condition."
                )
        return ordered

    def _check_conditions(self, domains: Mapping[str, list[Domain]]) -> None:
        """Check that the values of conditions are values of their parameters."""
        for domain in (domain for same_path in domains.values() for domain in same_path):
            for parent, allowed in domain.when.items():
                rule = f"when must name values of {parent}, {_either(domains.get(parent, []))}"
                self.mistakes += [
                    f"{domain.path}: {rule}, but got {value!r}. Correct or remove it."
                    for value in allowed
                    if parent in domains and not _contain(domains[parent], value)
                ]

    def _read_warm_start(
        self, domains: Mapping[str, list[Domain]]
    ) -> tuple[Mapping[str, Scalar], ...]:
        given = self.tree.get("warm_start", [])
        if not isinstance(given, list) or not all(isinstance(point, Mapping) for point in given):
            self.mistakes.append(
                f"warm_start: must be a list of points, but got {given!r:.40}. "
                "Write - {model.name: gmf}."
            )
            return ()
        for number, point in enumerate(given, start=1):
            for path, value in point.items():
                if path not in self.parameters:
                    remedy = suggestion(str(path), self.parameters)
                    self.mistakes.append(
                        f"warm_start {number}: {path} must be a parameter of this file, "
                        f"but got none. {remedy}"
                    )
                elif path in domains and not _contain(domains[path], value):
                    rule = f"must be {_either(domains[path])}"
                    self.mistakes.append(
                        f"warm_start {number}: {path} {rule}, but got {value!r}. "
                        "Correct it or widen the domain."
                    )
        return tuple(given)


def _contain(domains: Iterable[Domain], value: object) -> bool:
    return any(domain.contains(value) for domain in domains)


def _either(domains: Iterable[Domain]) -> str:
    return " or ".join(dict.fromkeys(map(str, domains)))
