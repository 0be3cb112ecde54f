"""The Markdown pages: the files, modules and config paths that they name exist."""

import re
from pathlib import Path
from pkgutil import resolve_name

import pytest

from recsys.config.schema import config_paths

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").rglob("*.md")]
SPAN = re.compile(r"`([^`\n]+)`")
FILE = re.compile(r"(?:recsys|tests|benchmarks|configs|search_spaces|docs)/[\w/*-]+(?:\.\w+)?/?")
MODULE_FILE = re.compile(r"[a-z_]+(?:/[a-z_]+)*\.py")
DOTTED = re.compile(r"(?:recsys\.)?[a-z_]+(?:\.[A-Za-z_]+)+")
UNMADE = re.compile(r"NAME|\.venv")
"""Names that stand for others, and what a reader makes."""
PACKAGES = {path.name for path in (ROOT / "recsys").iterdir() if (path / "__init__.py").exists()}
SECTIONS = {path.partition(".")[0] for path in config_paths()}


def missing_names(text: str) -> list[str]:
    """Return the names in code spans that look like the project's own and do not exist."""
    return [span for span in SPAN.findall(text) if not UNMADE.search(span) and is_missing(span)]


def is_missing(span: str) -> bool:
    if FILE.fullmatch(span):
        return not any(ROOT.glob(span.rstrip("/")))
    if MODULE_FILE.fullmatch(span):
        return not any(any((ROOT / top).rglob(span)) for top in ("recsys", "tests", "benchmarks"))
    return bool(DOTTED.fullmatch(span)) and is_own(span) and not exists(span)


def is_own(name: str) -> bool:
    first = name.removeprefix("recsys.").partition(".")[0]
    return not (ROOT / name).exists() and (
        name.startswith("recsys.") or first in PACKAGES | SECTIONS
    )


def exists(name: str) -> bool:
    """Return whether a name is a config path, a module, or something in one."""
    paths = [f"{path}." for path in config_paths()]
    if any(path.startswith(f"{name}.") or f"{name}.".startswith(path) for path in paths):
        return True
    full = name if name.startswith("recsys.") else f"recsys.{name}"
    try:
        resolve_name(full)
    except (ImportError, AttributeError):
        return False
    return True


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_names_exists(page: Path) -> None:
    assert missing_names(page.read_text(encoding="utf-8")) == []


def test_a_missing_name_is_found() -> None:
    text = "`recsys/none.py`, `data.none`, `training.loss`, `recsys.tune`, `data.negatives`, `a.b`"
    assert missing_names(text) == ["recsys/none.py", "data.none"]
