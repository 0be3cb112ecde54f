"""README's table of config paths, written from the fields by `python -m tests.test_readme`."""

from pathlib import Path
from typing import Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from recsys.config.components import OneOf
from recsys.config.schema import Config, config_paths, get_value

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- config paths: begin -->\n", "<!-- config paths: end -->"


def show(default: object) -> str:
    if default is None:
        return "none"
    if isinstance(default, bool):
        return str(default).lower()
    return str(list(default)) if isinstance(default, tuple) else str(default)


def choices_of(field: FieldInfo) -> tuple[object, ...]:
    """Return the names that a field admits, by its Literal or its table, beside None."""
    tables = [constraint.table for constraint in field.metadata if isinstance(constraint, OneOf)]
    types = (field.annotation, *get_args(field.annotation))
    literals = [get_args(kind) for kind in types if get_origin(kind) is Literal]
    return next((tuple(names) for names in (*tables, *literals)), ())


def make_table() -> str:
    lines = ["| path | default | meaning |", "|---|---|---|"]
    for path in config_paths():
        section, name = path.split(".")
        field = type(getattr(Config(), section)).model_fields[name]
        default = get_value(Config(), path)
        others = ", ".join(str(choice) for choice in choices_of(field) if choice != default)
        lines.append(
            f"| `{path}` | {show(default)}{f' ({others})' if others else ''} | "
            f"{' '.join((field.description or '').split())} |"
        )
    return "\n".join(lines) + "\n"


def test_readme_lists_every_config_path_as_the_config_has_it() -> None:
    table = README.read_text(encoding="utf-8").split(BEGIN)[1].split(END)[0]
    assert table == make_table()


if __name__ == "__main__":
    before, rest = README.read_text(encoding="utf-8").split(BEGIN)
    README.write_text(before + BEGIN + make_table() + END + rest.split(END)[1], encoding="utf-8")
