"""Reading of a `Config`: a YAML file, and values that replace some of the file's.

The commands call it. Values come from flags and from the environment. An error lists every mistake,
each with its origin.
"""

import difflib
import os
from collections.abc import Iterable, Mapping
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError
from ruamel.yaml import YAML

from recsys.config.mistakes import describe_mistakes, shown
from recsys.config.schema import Config, set_value
from recsys.config.yaml_text import MAX_CHARACTERS, parse_yaml
from recsys.errors import InputError

VARIABLES = {"study.storage": "RECSYS_STUDY_STORAGE", "tracking.uri": "RECSYS_TRACKING_URI"}
"""Environment variables by config path, for the settings that may hold a password: all users of a
machine can read a command line."""


class Override(NamedTuple):
    """Value that replaces another at a config path.

    `origin`: names the flag or the environment variable in errors.
    """

    path: str
    value: object
    origin: str


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file whose top level is a mapping with text keys.

    Raises:
        InputError: if there is no such file; if it cannot be read, is not UTF-8 text, is not YAML
            (see `parse_yaml`), is empty, or is no mapping.
    """
    if not path.is_file():
        names = [file.name for file in path.parent.glob("*.y*ml") if file.is_file()]
        near = difflib.get_close_matches(path.name, names, n=1)
        remedy = f"Did you mean {path.with_name(near[0])}?" if near else "Check the path."
        raise InputError(path, "must be a YAML file", "no such file", remedy)
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(MAX_CHARACTERS + 1)
    except UnicodeDecodeError:
        raise InputError(
            path, "must be UTF-8 text", "other bytes", "Save it as a YAML text file."
        ) from None
    except OSError as error:
        raise InputError(
            path, "must be readable", error.strerror, "Check its permissions."
        ) from None
    tree = parse_yaml(text, str(path))
    if not isinstance(tree, dict):
        got = "an empty file" if tree is None else f"{type(tree).__name__} {shown(tree):.40}"
        raise InputError(
            path, "must be a mapping of names to values", got, "See the examples in the README."
        )
    return {str(name): value for name, value in tree.items()}


def dump_yaml(tree: Mapping[str, Any]) -> str:
    """Write nested mappings, lists and scalars as block-style YAML 1.2 in their own order."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    stream = StringIO()
    yaml.dump(dict(tree), stream)
    return stream.getvalue()


def config_yaml(config: Config) -> str:
    """Return the complete config as YAML."""
    return dump_yaml(config.model_dump(mode="json"))


def parse_override(text: str, origin: str) -> Override:
    """Parse PATH=VALUE, where the value is YAML.

    Raises:
        InputError: if there is no path, no `=`, or the value is not YAML (see `parse_yaml`).
    """
    path, equals, value = text.partition("=")
    if not equals or not path:
        raise InputError(
            origin, "must be PATH=VALUE", f"{text!r}", "Write it as training.batch_size=512."
        )
    return Override(path, parse_yaml(value, f"{origin} {path}"), origin)


def load_config(base: Path | Config | None, overrides: Iterable[Override] = ()) -> Config:
    """Build the effective config.

    Args:
        base: a YAML file, a config, or None for the defaults alone.
        overrides: take precedence over the environment (see `VARIABLES`), which takes precedence
            over `base`; a later one takes precedence over an earlier one.

    Raises:
        InputError: if there is no such file; if values are wrong, with each mistake and its origin.
    """
    if isinstance(base, Path):
        tree, place = read_yaml(base), str(base)
    else:
        tree, place = base.model_dump() if base else {}, "config"
    environment = [
        Override(path, value, variable)
        for path, variable in VARIABLES.items()
        if (value := os.environ.get(variable))
    ]
    origins: dict[str, str] = {}
    for override in (*environment, *overrides):
        set_value(tree, override.path, override.value)
        origins[override.path] = override.origin
    return parse_config(tree, place, origins)


def parse_config(
    tree: Mapping[str, Any], place: str, origins: Mapping[str, str] | None = None
) -> Config:
    """Validate a nested mapping as a `Config`.

    Args:
        tree: the values.
        place: the origin of the tree, for errors.
        origins: config path -> origin, for the values that come from elsewhere.

    Raises:
        InputError: if values are wrong, with each mistake and its origin.
    """
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        mistakes = describe_mistakes(error)
        found = [_origin(path, origins or {}, place) for path, _ in mistakes]
        lines = [line for _, line in mistakes]
        if len(set(found)) == 1:
            place = "" if found[0] == "config" and len(lines) == 1 else found[0]
            raise InputError.listing(place, lines) from None
        lines = [f"{origin}: {line}" for origin, line in zip(found, lines, strict=True)]
        raise InputError.listing("config", lines) from None


def _origin(path: str, origins: Mapping[str, str], default: str) -> str:
    """Return the origin of the value at `path`, or of a group above or a value below it."""
    for known, origin in origins.items():
        if path == known or path.startswith(f"{known}.") or known.startswith(f"{path}."):
            return origin
    return default
