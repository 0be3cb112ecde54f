"""Rules of a domain in a search-space file: its form, and its values within its config field.

`space_file` applies them. Every mistake is a line `PATH: rule, but got VALUE. remedy`.
"""

from collections.abc import Hashable, Mapping
from typing import Any, get_args

from recsys.config.mistakes import unknown_path
from recsys.config.schema import Config, config_paths
from recsys.search.space.domains import Domain, Scalar
from recsys.search.space.validity import field_refusals

SEARCHED_SECTIONS = ("model", "training")
MAX_CHOICES = 1_000
_KEYS = {"low", "high", "log", "choices", "when"}


def form_mistake(path: str, given: Any) -> str | None:
    """Return the mistake in the path or the form of a domain, None if there is none."""
    if path not in config_paths():
        return unknown_path(path)
    if path.partition(".")[0] not in SEARCHED_SECTIONS:
        rule = "must be under model or training, since the trials of a study share the rest"
        return f"{path}: {rule}, but got {path}. Set it in the config."
    if (
        not isinstance(given, Mapping)
        or given.keys() - _KEYS
        or not (_is_choices(given) or _is_range(given))
    ):
        form = (
            "must be {low, high}, with log: true if wanted, or {choices: [...]}, either with when, "
            "or a list of such"
        )
        return f"{path}: {form}, but got {_plain(given)}. Write it as one of the two."
    return None


def value_mistakes(path: str, given: Mapping[str, Any]) -> list[str]:
    """Return the mistakes in the values of a well-formed domain."""
    if "choices" in given:
        found, values = _choice_mistakes(path, given["choices"]), given["choices"]
    else:
        found, values = _range_mistakes(path, given), [given["low"], given["high"]]
    return found or [text for value in values for text in field_refusals(path, value)]


def make_domain(
    path: str, given: Mapping[str, Any], when: Mapping[str, tuple[Scalar, ...]]
) -> Domain:
    """Return the domain that a file gives without mistakes, under the conditions `when`."""
    if "choices" in given:
        return Domain(path, tuple(given["choices"]), None, None, False, when)
    number = float if float in _field_types(path) else int
    low, high = number(given["low"]), number(given["high"])
    return Domain(path, None, low, high, given.get("log", False), when)


def _is_choices(given: Mapping[str, Any]) -> bool:
    choices = given.get("choices")
    return isinstance(choices, list) and bool(choices) and not given.keys() & {"low", "high", "log"}


def _is_range(given: Mapping[str, Any]) -> bool:
    return (
        "choices" not in given
        and {"low", "high"} <= given.keys()
        and isinstance(given.get("log", False), bool)
    )


def _choice_mistakes(path: str, choices: list[Any]) -> list[str]:
    if len(choices) > MAX_CHOICES:
        return [
            f"{path}: choices must be at most {MAX_CHOICES:,}, but got {len(choices):,}. "
            "Leave some out, or give a range."
        ]
    if not all(isinstance(choice, Hashable) for choice in choices):
        return [f"{path}: choices must be plain values, but got {choices!r:.60}. Name each value."]
    if len({(type(choice), choice) for choice in choices}) < len(choices):
        return [f"{path}: choices must differ, but got {choices!r:.60}. Remove the repeated ones."]
    return []


def _range_mistakes(path: str, given: Mapping[str, Any]) -> list[str]:
    low, high = given["low"], given["high"]
    got = f"but got {low!r} and {high!r}."
    if not {int, float} & _field_types(path):
        return [
            f"{path}: must have choices, since it is no number, but got a range. "
            "Write {choices: [...]}."
        ]
    if not all(isinstance(end, (int, float)) and not isinstance(end, bool) for end in (low, high)):
        return [f"{path}: low and high must be numbers, {got} Correct them or give choices."]
    if not low < high:
        return [f"{path}: low must be less than high, {got} Swap or widen them."]
    if given.get("log") and low <= 0:
        return [
            f"{path}: low must be greater than 0 with log, but got {low!r}. "
            "Raise it or leave log out."
        ]
    return []


def _field_types(path: str) -> set[object]:
    """Return the types that a config field accepts, such as int and None, without their bounds."""
    section, name = path.split(".")
    annotation = type(getattr(Config(), section)).model_fields[name].annotation
    return {annotation, *(getattr(kind, "__origin__", kind) for kind in get_args(annotation))}


def _plain(value: object) -> str:
    return f"{dict(value) if isinstance(value, Mapping) else value!r}"[:80]
