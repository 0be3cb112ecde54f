"""Reading YAML files and command-line settings into a `Config`, and saying what is wrong with them.

The ground floor, beside `config`. Every mistake is told as `PLACE: rule, but got value. remedy`; several of one place together.
"""

import difflib
import os
from collections.abc import Iterable, Mapping, Sequence
from io import StringIO
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn, get_args

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML

from recsys.config.schema import Config, config_paths, get_value, set_value
from recsys.config.yaml_text import MAX_CHARACTERS, parse_yaml
from recsys.errors import InputError
from recsys.storage.credentials import without_passwords

VARIABLES = {"study.storage": "RECSYS_STUDY_STORAGE", "tracking.uri": "RECSYS_TRACKING_URI"}
"""Environment variables that set what may hold a password: a command line is seen by all users of a machine."""
Flags = Mapping[str, tuple[str, object]]
_LISTED_NAMES = 20
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


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file whose top level is a mapping with text keys.

    Raises:
        InputError: if there is no such file; if it is not readable text, not YAML (see `parse_yaml`), empty, or no mapping.
    """
    if not path.is_file():
        near = difflib.get_close_matches(
            path.name, [p.name for p in path.parent.glob("*.y*ml")], n=1
        )
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
        got = "an empty file" if tree is None else f"{type(tree).__name__} {_shown(tree):.40}"
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


def load_config(
    base: Path | Config | None, settings: Iterable[str] = (), flags: Flags = MappingProxyType({})
) -> Config:
    """Build the effective config: flag over `--set` over the environment over `base` over default.

    Args:
        base: a YAML file, a config, or None for the defaults alone.
        settings: the values of `--set`, each PATH=VALUE with a YAML value.
        flags: config path -> (flag as written, value) for the flags that were given.

    Raises:
        InputError: if the file is missing; listing every mistake with its place.
    """
    if isinstance(base, Path):
        tree, place = read_yaml(base), str(base)
    else:
        tree, place = base.model_dump() if base else {}, "config"
    places: dict[str, str] = {}
    for path, variable in VARIABLES.items():
        if url := os.environ.get(variable):
            set_value(tree, path, url)
            places[path] = variable
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals or not path:
            raise InputError(
                "--set",
                "must be PATH=VALUE",
                f"{setting!r}",
                "Write it as --set training.batch_size=512.",
            )
        set_value(tree, path, parse_yaml(text, f"--set {path}"))
        places[path] = "--set"
    for path, (flag, value) in flags.items():
        set_value(tree, path, value)
        places[path] = flag
    if "data.source" in flags:
        tree["data"].pop(
            "files", None
        )  # a flag that names the data takes the place of a file's given split
    return parse_config(tree, place, places)


def parse_config(
    tree: Mapping[str, Any], place: str, places: Mapping[str, str] | None = None
) -> Config:
    """Validate a nested mapping as a `Config`; `places` says where single paths came from if not from `place`.

    Raises:
        InputError: listing every mistake with its place.
    """
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        mistakes = describe_mistakes(error)
        origins = {
            path: next((o for p, o in (places or {}).items() if _overlap(p, path)), place)
            for path, _ in mistakes
        }
        if len(set(origins.values())) == 1:
            raise_mistakes(next(iter(origins.values())), [text for _, text in mistakes])
        raise_mistakes("config", [f"{origins[path]}: {text}" for path, text in mistakes])


def raise_mistakes(place: str, mistakes: Sequence[str]) -> NoReturn:
    """Raise the mistakes of one place, each `PATH: rule, but got value. remedy`, as one ValueError.

    Raises:
        InputError: always.
    """
    if len(mistakes) == 1:
        raise InputError.listing("" if place == "config" else place, mistakes)
    raise InputError.listing(place, mistakes)


def describe_mistakes(error: ValidationError) -> list[tuple[str, str]]:
    """Each mistake of a config as (path, `path: rule, but got value. remedy`), in the order of the tree."""
    found: dict[str, str] = {}
    for details in error.errors():
        if details["type"] == "value_error":
            text = str(details["ctx"]["error"])
            path = _known_prefix(details["loc"])
            if path:  # raised for one field, else the text begins with its path
                text = f"{path}: {text}"
            found.setdefault(path or text.partition(":")[0], text)
        elif details["type"] in ("extra_forbidden", "invalid_key"):
            path = ".".join(str(name) for name in details["loc"] if name != "[key]")
            found.setdefault(
                path, _flat_path(path) if path in config_paths() else unknown_path(path)
            )
        else:
            path = _known_prefix(details["loc"])
            rule = _rule(details["type"], details.get("ctx", {}))
            got = "nothing" if details["type"] == "missing" else _shown(details["input"])
            found.setdefault(path, f"{path}: {rule}, but got {got}. {_remedy(path)}")
    return list(found.items())


def unknown_path(path: str) -> str:
    """What is wrong with a name that is no config path, with the nearest one that is."""
    names = [name for name in _all_names() if "." in name or "." not in path]
    return f"{path}: must be a config path, but got an unknown name. {nearest(path, names)}"


def _flat_path(path: str) -> str:
    """What is wrong with a config path as a key of a config file: search spaces are flat, configs nested."""
    section, _, name = path.partition(".")
    return (
        f"{path}: must be nested in a config, but got one name. Write {section}: {{{name}: VALUE}}."
    )


def _all_names(section: type[BaseModel] = Config, prefix: str = "") -> list[str]:
    """Every name of the tree, groups included: `data`, `data.columns`, `data.columns.user` and so on."""
    names = []
    for name, field in section.model_fields.items():
        inner = _inner_section(field.annotation)
        names += [f"{prefix}{name}", *(_all_names(inner, f"{prefix}{name}.") if inner else [])]
    return names


def nearest(name: str, names: Iterable[str]) -> str:
    """A remedy that names the closest of `names`, by the whole name or by its last part."""
    names = list(names)
    leaf = name.rpartition(".")[2]
    near = [n for n in names if n.rpartition(".")[2] == leaf] or difflib.get_close_matches(
        name, names, n=1
    )
    if near:
        return f"Did you mean {near[0]}?"
    return (
        f"Known are {', '.join(names)}."
        if len(names) <= _LISTED_NAMES
        else "See the config paths in the README."
    )


def _overlap(one: str, other: str) -> bool:
    return one == other or one.startswith(f"{other}.") or other.startswith(f"{one}.")


def _known_prefix(location: Sequence[str | int]) -> str:
    """The config path of an error's location, without the positions and union branches that pydantic appends."""
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
    """The group of settings that a field holds, optional or not."""
    return next(
        (
            t
            for t in (annotation, *get_args(annotation))
            if isinstance(t, type) and issubclass(t, BaseModel)
        ),
        None,
    )


def _rule(kind: str, context: Mapping[str, Any]) -> str:
    if kind == "literal_error":
        return f"must be one of {context['expected'].replace(' or ', ', ')}".replace("'", "")
    if kind in _BOUNDS:
        words, bound = _BOUNDS[kind]
        return f"must be {words} {context[bound]:.10g}"
    return next(
        (f"must {text}" for name, text in _WANTED.items() if kind.startswith(name)),
        f"must satisfy {kind}",
    )


def _shown(value: object) -> str:
    """A value as a YAML file has it, in short."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return without_passwords(f"{list(value) if isinstance(value, tuple) else value!r}")[:60]


def _remedy(path: str) -> str:
    if path not in config_paths():
        return "See the config paths in the README."
    default = get_value(Config(), path)
    return f"The default is {default if isinstance(default, str) else _shown(default)}."
