"""Mistakes of a config as lines `PATH: rule, but got VALUE. remedy`.

They are made from pydantic's errors, and one `InputError` lists them all.
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from recsys.config.schema import Config, config_paths, get_value
from recsys.errors import InputError
from recsys.storage.credentials import without_passwords

_LISTED_NAMES = 20
_README = "See the config paths in the README."
_BOUNDS = {
    "greater_than_equal": ("at least", "ge"),
    "greater_than": ("greater than", "gt"),
    "less_than": ("less than", "lt"),
}
_WANTED = {
    "int": "be a whole number",
    "float": "be a number",
    "finite": "be a finite number",
    "bool": "be true or false",
    "string_type": "be text",
    "tuple": "be a list",
    "model": "be a group of settings",
    "dict": "be a mapping of names to values",
    "missing": "be given",
    "too_short": "not be empty",
    "string_too_short": "not be empty",
}
"""Rule by the beginning of the type of pydantic's error."""


def describe_mistakes(error: ValidationError) -> list[tuple[str, str]]:
    """Return one mistake per path, as (path, line), in the order of the config tree."""
    found: dict[str, str] = {}
    for details in error.errors():
        path, line = _describe(details)
        found.setdefault(path, line)
    return list(found.items())


def _describe(details: ErrorDetails) -> tuple[str, str]:
    path = _known_prefix(details["loc"])
    if details["type"] == "value_error":
        cause = details["ctx"]["error"]
        if not isinstance(cause, InputError):  # a bug in a validator
            raise cause
        text = str(cause)
        # The text of a check across groups begins with the path itself.
        return (path, f"{path}: {text}") if path else (text.partition(":")[0], text)
    if details["type"] in ("extra_forbidden", "invalid_key"):
        path = ".".join(str(name) for name in details["loc"] if name != "[key]")
        return path, _flat_path(path) if path in config_paths() else unknown_path(path)
    rule = _rule(details["type"], details.get("ctx", {}))
    got = "nothing" if details["type"] == "missing" else shown(details["input"])
    return path, f"{path}: {rule}, but got {got}. {_remedy(path)}"


def unknown_path(path: str) -> str:
    """Return the line about a name that is no config path, with the nearest one that is."""
    names = [name for name in _all_names(Config) if "." in name or "." not in path]
    return f"{path}: must be a config path, but got an unknown name. {suggestion(path, names)}"


def suggestion(name: str, names: Iterable[str]) -> str:
    """Return a remedy: the most similar of `names`, or all if they are few, or the README."""
    names = list(names)
    leaf = name.rpartition(".")[2]
    near = [n for n in names if n.rpartition(".")[2] == leaf]
    near = near or difflib.get_close_matches(name, names, n=1)
    if near:
        return f"Did you mean {near[0]}?"
    return f"Known are {', '.join(names)}." if len(names) <= _LISTED_NAMES else _README


def shown(value: object) -> str:
    """Return a value as a YAML file writes it, cut to 60 characters and without passwords."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return without_passwords(f"{list(value) if isinstance(value, tuple) else value!r}")[:60]


def _flat_path(path: str) -> str:
    """Return the line about a config path as a key: search spaces are flat, configs nested."""
    section, _, name = path.partition(".")
    return (
        f"{path}: must be nested in a config, but got one name. Write {section}: {{{name}: VALUE}}."
    )


def _all_names(section: type[BaseModel], prefix: str = "") -> list[str]:
    """Return every name of the tree, groups included: `data`, `data.columns` and so on."""
    names = []
    for name, field in section.model_fields.items():
        inner = _inner_section(field.annotation)
        names += [f"{prefix}{name}", *(_all_names(inner, f"{prefix}{name}.") if inner else [])]
    return names


def _known_prefix(location: Sequence[str | int]) -> str:
    """Return an error's config path, without pydantic's positions and branches of unions."""
    section: type[BaseModel] = Config
    names: list[str] = []
    for name in location:
        field = section.model_fields.get(str(name))
        if field is None:
            break
        names.append(str(name))
        if (inner := _inner_section(field.annotation)) is None:
            break
        section = inner
    return ".".join(names)


def _inner_section(annotation: Any) -> type[BaseModel] | None:
    """Return the group of settings that a field holds, also if the field is optional; else None."""
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _rule(kind: str, context: Mapping[str, Any]) -> str:
    if kind == "literal_error":
        return f"must be one of {context['expected'].replace(' or ', ', ')}".replace("'", "")
    if kind in _BOUNDS:
        words, bound = _BOUNDS[kind]
        return f"must be {words} {context[bound]:.10g}"
    wanted = (f"must {text}" for name, text in _WANTED.items() if kind.startswith(name))
    return next(wanted, f"must satisfy {kind}")


def _remedy(path: str) -> str:
    if path not in config_paths():
        return _README
    default = get_value(Config(), path)
    return f"The default is {default if isinstance(default, str) else shown(default)}."
