"""Names in recsys: none uses a word that the glossary of CONTRIBUTING.md replaces."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "recsys").rglob("*.py"))


def banned_words() -> set[str]:
    """Return the words in the last column of the glossary."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\|.*\|(.*)\|$", text.split("## Glossary\n")[1], re.MULTILINE)
    return {word for row in rows[2:] for word in re.findall(r"`(\w+)`", row)}


def names_in(source: str) -> Iterator[str]:
    """Yield every name that a module defines: functions, classes, arguments, variables."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.id if isinstance(node, ast.Name) else node.attr


def words_of(name: str) -> set[str]:
    """Return the words of a name: `HeldOut` and `held_out` are held, out."""
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_name_uses_a_banned_word(file: Path) -> None:
    names = {*names_in(file.read_text(encoding="utf-8")), file.stem}
    assert {name for name in names if words_of(name) & banned_words()} == set()


def test_a_banned_word_is_found() -> None:
    source = "def told(part):\n    for n_parts in x:\n        self.goesOn = 1\nclass Settle: ..."
    assert set(names_in(source)) == {"told", "part", "n_parts", "goesOn", "Settle"}
    assert words_of("n_parts") == {"n", "parts"}
    assert words_of("goesOn") == {"goes", "on"}
    assert {"part", "parts", "intercepts", "told"} <= banned_words()
