"""The floors of docs/architecture.md: who may import whom, where the heavy libraries live, and how long a module may be."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
MODULES = {
    ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file.read_text(encoding="utf-8")
    for file in sorted((ROOT / "recsys").rglob("*.py"))
}
COMMANDS = ("preprocess", "tune", "train", "evaluate", "recommend", "report")

FLOORS = {
    **dict.fromkeys(("config", "config_files", "credentials", "databases", "errors", "object_store", "storage"), 0),
    **dict.fromkeys(("streams", "surroundings", "verbosity", "yaml_text"), 0),
    **dict.fromkeys(("models", "data"), 1),
    **dict.fromkeys(("training", "baselines"), 2),
    **dict.fromkeys(("tracking",), 3),
    **dict.fromkeys(("search", "reporting"), 4),
    **dict.fromkeys((*COMMANDS, "command_line"), 5),
}
FOLDERS = {"models", "data", "training", "tracking", "search", "reporting"}
SIDEWAYS = {("baselines", "training")}
"""Imports within a floor, beside those within a folder: baselines are scored by the evaluation that scores models."""

HOMES = {
    "ray": ("data.connection", "data.pipeline", "data.nodes", "search", "tracking", *COMMANDS),
    "optuna": ("search", "reporting"),
    "mlflow": ("tracking",),
    "torch": ("models", "training", "baselines", "search"),
}
DEFERRED_HOMES = {"torch": ("data.negatives", "data.cells")}
"""Where a library may be imported within a function or for type checking alone."""

MAX_LINES = 250
LONG_MODULES = {"recsys.config"}
"""The tree of settings is a table with a line of meaning a setting: it grows with them and stays in one place."""


class Import(NamedTuple):
    name: str
    deferred: bool


def imports_of(source: str) -> Iterator[Import]:
    """Every name that a module imports, `from recsys import x` as `recsys.x`; relative ones begin with a dot."""
    tree = ast.parse(source)
    deferred = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        or (isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"))
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node in deferred) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = "." * node.level + (node.module or "")
            names = [f"{origin}.{alias.name}" for alias in node.names] if origin == "recsys" else [origin]
            yield from (Import(name, node in deferred) for name in names)


def place_of(module: str) -> str:
    """The folder or the single module below recsys: `recsys.data.splits` is in `data`."""
    return module.split(".")[1] if "." in module else ""


def violations(module: str, source: str) -> list[str]:
    """What a module imports against the floors and the homes."""
    if module == "recsys":
        return [f"recsys imports {name}" for name, _ in imports_of(source)]
    found = []
    for name, deferred in imports_of(source):
        library = name.partition(".")[0]
        if name.startswith("."):
            found.append(f"{module} imports {name}, which is relative")
        elif library == "recsys" and not may_import(place_of(module), place_of(name)):
            found.append(f"{module} imports {name}")
        elif library in HOMES and not lives_in(library, module.removeprefix("recsys."), deferred):
            found.append(f"{module} imports {library}")
    return found


def may_import(importer: str, imported: str) -> bool:
    if importer not in FLOORS or imported not in FLOORS:
        return False
    same_folder = importer == imported or not {importer, imported} & FOLDERS
    beside = FLOORS[importer] == FLOORS[imported] and (same_folder or (importer, imported) in SIDEWAYS)
    return FLOORS[imported] < FLOORS[importer] or beside


def lives_in(library: str, module: str, deferred: bool) -> bool:
    homes = HOMES[library] + (DEFERRED_HOMES.get(library, ()) if deferred else ())
    return any(module == home or module.startswith(f"{home}.") for home in homes)


@pytest.mark.parametrize("module", MODULES)
def test_imports_keep_to_the_floors(module: str) -> None:
    assert violations(module, MODULES[module]) == []


@pytest.mark.parametrize("module", sorted(MODULES.keys() - LONG_MODULES))
def test_a_module_is_short_enough_to_read(module: str) -> None:
    assert len(MODULES[module].splitlines()) < MAX_LINES


def test_the_modules_were_found() -> None:
    assert {"recsys", "recsys.config", "recsys.data", "recsys.data.negatives", "recsys.search.trial"} <= MODULES.keys()


def test_exceptions_are_still_needed() -> None:
    assert {module for module in LONG_MODULES if len(MODULES[module].splitlines()) < MAX_LINES} == set()


@pytest.mark.parametrize(
    ("module", "source", "expected"),
    [
        # upwards, sideways, into a place that nobody has put on a floor
        ("recsys.data.splits", "from recsys.training.fit import fit", ["recsys.data.splits imports recsys.training.fit"]),
        ("recsys.data.splits", "from recsys import tune", ["recsys.data.splits imports recsys.tune"]),
        ("recsys.data.splits", "import recsys.models.gmf", ["recsys.data.splits imports recsys.models.gmf"]),
        ("recsys.training.fit", "from recsys.baselines import x", ["recsys.training.fit imports recsys.baselines"]),
        ("recsys.tracking.runs", "from recsys.search import study", ["recsys.tracking.runs imports recsys.search"]),
        ("recsys.search.study", "from recsys.reporting import plots", ["recsys.search.study imports recsys.reporting"]),
        ("recsys.config", "from recsys.data import catalog", ["recsys.config imports recsys.data"]),
        ("recsys.tune", "from recsys.helpers import x", ["recsys.tune imports recsys.helpers"]),
        ("recsys.helpers.x", "from recsys.config import Config", ["recsys.helpers.x imports recsys.config"]),
        ("recsys.tune", "from recsys import config, helpers", ["recsys.tune imports recsys.helpers"]),
        # hidden within a function is upwards all the same
        ("recsys.config", "def f():\n    from recsys.search import study", ["recsys.config imports recsys.search"]),
        ("recsys.data.splits", "from . import scan", ["recsys.data.splits imports ., which is relative"]),
        ("recsys", "import os", ["recsys imports os"]),
        # libraries away from home
        ("recsys.data.splits", "import ray.data", ["recsys.data.splits imports ray"]),
        ("recsys.data.pipeline_x", "import ray", ["recsys.data.pipeline_x imports ray"]),
        ("recsys.training.fit", "from ray import tune", ["recsys.training.fit imports ray"]),
        ("recsys.training.fit", "def f():\n    import optuna", ["recsys.training.fit imports optuna"]),
        ("recsys.search.record", "import mlflow.tracking as t", ["recsys.search.record imports mlflow"]),
        ("recsys.reporting.plots", "import mlflow", ["recsys.reporting.plots imports mlflow"]),
        ("recsys.command_line", "def f():\n    import torch", ["recsys.command_line imports torch"]),
        ("recsys.data.negatives", "import torch", ["recsys.data.negatives imports torch"]),
        ("recsys.data.splits", "def f():\n    import torch", ["recsys.data.splits imports torch"]),
    ],
)
def test_a_violation_is_found(module: str, source: str, expected: list[str]) -> None:
    assert violations(module, source) == expected


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("recsys.data.splits", "from recsys.data import scan\nfrom recsys.config import Config\nimport numpy"),
        ("recsys.config_files", "from recsys.config import Config"),
        ("recsys.baselines", "from recsys.training.evaluation import evaluate\nimport torch"),
        ("recsys.tune", "from recsys import command_line\ndef f():\n    from recsys.search import session"),
        ("recsys.data.pipeline", "def f():\n    import ray"),
        ("recsys.data.negatives", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch"),
        ("recsys.data.negatives", "class A:\n    def f(self):\n        import torch"),
        ("recsys.search.space", "import optuna, ray\nfrom torch import nn"),
        ("recsys.tracking.runs", "import mlflow, rayon"),
    ],
)
def test_what_is_allowed_is_not_found(module: str, source: str) -> None:
    assert violations(module, source) == []


@pytest.mark.parametrize("command", [name for name in COMMANDS if f"recsys.{name}" in MODULES])
def test_importing_a_command_imports_no_heavy_library(command: str) -> None:
    # --help and a mistake on the command line are answered at once.
    heavy = {*HOMES, "pandas", "pyarrow"}
    code = f"import sys, recsys.{command}; print(*({heavy!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == []


def test_importing_the_package_imports_nothing() -> None:
    code = "import sys, recsys; print(*(name for name in sys.modules if name.startswith('recsys.')))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == []
