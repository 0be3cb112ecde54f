"""Reading a search space from YAML, with every mistake of the file told at once.

Stands before the search. Each domain is checked against the type and the bounds of its config field, so that each sampled set of
values makes a valid config.
"""

from collections.abc import Hashable, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

from recsys.config.files import read_yaml
from recsys.config.mistakes import suggestion, unknown_path
from recsys.config.schema import Config, config_paths, get_value
from recsys.console.verbosity import note
from recsys.errors import InputError
from recsys.search.space.space import Domain, Scalar, SearchSpace, field_refusals

SEARCHED_SECTIONS = ("model", "training")
MAX_DOMAINS = 50
MAX_CHOICES = 1_000
_DOMAIN_KEYS = {"low", "high", "log", "choices", "when"}


def read_space(path: Path) -> SearchSpace:
    """Read a search-space file.

    Raises:
        InputError: if there is no such file; listing every mistake of the file.
    """
    return parse_space(read_yaml(path), str(path))


def read_effective_space(file: Path, config: Config, decided: Iterable[str]) -> SearchSpace:
    """The file's space less the paths that flags and `--set` decided, each with a note on standard error.

    Raises:
        InputError: if there is no such file; listing every mistake, or if nothing is left to search.
    """
    space = read_space(file)
    leaving = [path for path in space.paths if path in set(decided)]
    space = space.fixed(leaving, config)
    if not space.domains:
        raise InputError(
            file,
            "must leave a parameter to search",
            "all set",
            "Take one from --set, or use recsys.train.",
        )
    space.check_with(config)
    for path in leaving:
        note(f"note: {path} is set to {get_value(config, path)} and leaves the search space.")
    return space


def parse_space(tree: Mapping[str, Any], place: str) -> SearchSpace:
    """Validate a mapping with `parameters` and, if any, `warm_start`.

    Raises:
        InputError: listing every mistake.
    """
    return _SpaceReader(tree).read(place)


class _SpaceReader:
    """Collects the domains and the mistakes of one file."""

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
            f"parameters: must map config paths to domains, but got {found!r:.40}. See the README's example."
        )
        return {}

    def read(self, place: str) -> SearchSpace:
        for name in (name for name in self.tree if name not in ("parameters", "warm_start")):
            self.mistakes.append(
                f"{name}: must be parameters or warm_start, but got another name. Correct or remove it."
            )
        listed = {
            path: given if isinstance(given, list) and given else [given]
            for path, given in self.parameters.items()
        }
        if (n_domains := sum(map(len, listed.values()))) > MAX_DOMAINS:
            raise InputError(
                place,
                f"parameters: must have at most {MAX_DOMAINS} domains",
                f"{n_domains:,}",
                "Remove some.",
            )
        for path, domains in listed.items():
            for domain in domains:
                self._read_domain(path, domain)
        ordered = self._order_by_condition()
        points = self._read_warm_start(ordered)
        if self.mistakes:
            raise InputError.listing(place, self.mistakes)
        return SearchSpace(
            tuple(domain for domains in ordered.values() for domain in domains), points
        )

    def _read_domain(self, path: str, given: Any) -> None:
        if path not in config_paths():
            self.mistakes.append(unknown_path(path))
            return
        if path.partition(".")[0] not in SEARCHED_SECTIONS:
            rule = "must lie under model or training, since the trials of a study share the rest"
            self.mistakes.append(
                f"{path}: {rule}, but got {path}. Set it with --set or in the config."
            )
            return
        if (
            not isinstance(given, Mapping)
            or given.keys() - _DOMAIN_KEYS
            or not _is_range_or_choices(given)
        ):
            form = "must be {low, high}, with log: true if wanted, or {choices: [...]}, either with when, or a list of such"
            self.mistakes.append(
                f"{path}: {form}, but got {_plain(given)}. Write it as one of the two."
            )
            return
        condition = self._read_condition(path, given.get("when", {}))
        found = (
            _choice_mistakes(path, given["choices"])
            if "choices" in given
            else _range_mistakes(path, given)
        )
        values = given.get("choices", [given.get("low"), given.get("high")])
        found = found or [text for value in values for text in field_refusals(path, value)]
        self.mistakes += dict.fromkeys(found)
        if not found:
            number = float if float in _field_types(path) else int
            low, high = (
                (None, None)
                if "choices" in given
                else (number(given["low"]), number(given["high"]))
            )
            choices = tuple(given["choices"]) if "choices" in given else None
            domain = Domain(path, choices, low, high, given.get("log", False), condition)
            self.domains.setdefault(path, []).append(domain)

    def _read_condition(self, path: str, given: Any) -> dict[str, tuple[Scalar, ...]]:
        if not isinstance(given, Mapping) or [] in given.values():
            self.mistakes.append(
                f"{path}: when must map parameters to values, but got {given!r:.40}. Write {{model.name: [mlp]}}."
            )
            return {}
        condition = {
            str(parent): tuple(v) if isinstance(v, list) else (v,) for parent, v in given.items()
        }
        for parent in condition:
            if parent == path:
                self.mistakes.append(
                    f"{path}: when must name another parameter, but got the parameter itself. Remove it."
                )
            elif parent not in self.parameters:
                remedy = suggestion(parent, self.parameters)
                self.mistakes.append(
                    f"{path}: when must name a parameter of this file, but got {parent}. {remedy}"
                )
        return condition

    def _order_by_condition(self) -> dict[str, list[Domain]]:
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
            if path not in parents[path]:  # a condition on itself has been told already
                self.mistakes.append(
                    f"{path}: when must not lead back to itself, but got a circle. Remove one condition."
                )
        for path, domain in (
            (path, domain) for path, domains in ordered.items() for domain in domains
        ):
            for parent, allowed in domain.when.items():
                rule = f"when must name values of {parent}, {_either(ordered.get(parent, []))}"
                self.mistakes += [
                    f"{path}: {rule}, but got {value!r}. Correct or remove it."
                    for value in allowed
                    if parent in ordered and not _contain(ordered[parent], value)
                ]
        return ordered

    def _read_warm_start(
        self, domains: Mapping[str, list[Domain]]
    ) -> tuple[Mapping[str, Scalar], ...]:
        given = self.tree.get("warm_start", [])
        if not isinstance(given, list) or not all(isinstance(point, Mapping) for point in given):
            self.mistakes.append(
                f"warm_start: must be a list of points, but got {given!r:.40}. Write - {{model.name: gmf}}."
            )
            return ()
        for number, point in enumerate(given, start=1):
            for path, value in point.items():
                if path not in self.parameters:
                    remedy = suggestion(str(path), self.parameters)
                    self.mistakes.append(
                        f"warm_start {number}: {path} must be a parameter of this file, but got none. {remedy}"
                    )
                elif path in domains and not _contain(domains[path], value):
                    rule = f"must be {_either(domains[path])}"
                    self.mistakes.append(
                        f"warm_start {number}: {path} {rule}, but got {value!r}. Correct it or widen the domain."
                    )
        return tuple(given)


def _contain(domains: Iterable[Domain], value: object) -> bool:
    return any(domain.contains(value) for domain in domains)


def _either(domains: Iterable[Domain]) -> str:
    return " or ".join(dict.fromkeys(map(str, domains)))


def _is_range_or_choices(given: Mapping[str, Any]) -> bool:
    if "choices" in given:
        choices = given["choices"]
        return (
            isinstance(choices, list)
            and bool(choices)
            and not given.keys() & {"low", "high", "log"}
        )
    return {"low", "high"} <= given.keys() and isinstance(given.get("log", False), bool)


def _choice_mistakes(path: str, choices: list[Any]) -> list[str]:
    if len(choices) > MAX_CHOICES:
        return [
            f"{path}: choices must be at most {MAX_CHOICES:,}, but got {len(choices):,}. Leave some out, or give a range."
        ]
    if not all(isinstance(choice, Hashable) for choice in choices):
        return [f"{path}: choices must be plain values, but got {choices!r:.60}. Name each value."]
    if len({(type(choice), choice) for choice in choices}) < len(choices):
        return [f"{path}: choices must differ, but got {choices!r:.60}. Remove the repeated ones."]
    return []


def _range_mistakes(path: str, given: Mapping[str, Any]) -> list[str]:
    low, high = given["low"], given["high"]
    if not {int, float} & _field_types(path):
        return [
            f"{path}: must have choices, since it is no number, but got a range. Write {{choices: [...]}}."
        ]
    if not all(
        isinstance(edge, (int, float)) and not isinstance(edge, bool) for edge in (low, high)
    ):
        return [
            f"{path}: low and high must be numbers, but got {low!r} and {high!r}. Correct them or give choices."
        ]
    if not low < high:
        return [
            f"{path}: low must be less than high, but got {low!r} and {high!r}. Swap or widen them."
        ]
    if given.get("log") and low <= 0:
        return [
            f"{path}: low must be greater than 0 with log, but got {low!r}. Raise it or leave log out."
        ]
    return []


def _field_types(path: str) -> set[object]:
    """The types that a config field admits, such as {int} or {int, NoneType}."""
    section, name = path.split(".")
    annotation = type(getattr(Config(), section)).model_fields[name].annotation
    return {annotation, *get_args(annotation)}


def _plain(value: object) -> str:
    return f"{dict(value) if isinstance(value, Mapping) else value!r}"[:80]
