"""The drawing of docs/architecture.md: the allowed imports, heavy libraries and module lengths."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = {
    ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(
        ".__init__"
    ): file.read_text(encoding="utf-8")
    for file in sorted((ROOT / "recsys").rglob("*.py"))
}
COMMANDS = ("preprocess", "tune", "train", "evaluate", "recommend")
DRAWING = re.search(
    r"```mermaid\n(.*?)```", (ROOT / "docs/architecture.md").read_text(encoding="utf-8"), re.DOTALL
)
ARROW = re.compile(r"^ *([a-z_.]+) --> ([a-z_. &]+)$", re.MULTILINE)

HOMES = {
    "ray": ("cluster", "data.preprocessing", "final", "search", *COMMANDS),
    "optuna": ("search",),
    "mlflow": ("tracking",),
    "torch": (
        *("kernels", "models", "evaluation", "training", "serving", "final"),
        *("search.costs", "search.sampling", "search.tuning"),
    ),
}

MAX_LINES = 250


def imports_of(source: str) -> Iterator[str]:
    """Yield every name that a module imports, `from recsys import x` as `recsys.x`.

    Imports within functions count too. Relative ones begin with a dot.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = "." * node.level + (node.module or "")
            if origin.partition(".")[0] == "recsys":
                yield from (f"{origin}.{alias.name}" for alias in node.names)
            else:
                yield origin


def arrows() -> dict[str, set[str]]:
    """Return the drawing: each package with those that its arrows lead to."""
    assert DRAWING is not None
    return {package: set(to.split(" & ")) for package, to in ARROW.findall(DRAWING[1])}


PACKAGES = arrows().keys() | set().union(*arrows().values())


def package_of(module: str) -> str:
    """Return a module's package in the drawing: `data.readers` of `recsys.data.readers.text`."""
    path = module.split(".")[1:]
    while path and ".".join(path) not in PACKAGES - {"commands"}:
        path.pop()
    return ".".join(path) or ("commands" if module.count(".") == 1 else "none")


def reached(package: str, graph: dict[str, set[str]]) -> set[str]:
    """Return the packages that arrows lead to from a package, directly or through others."""
    found: set[str] = set()
    waiting = [package]
    while waiting:
        new = graph.get(waiting.pop(), set()) - found
        found |= new
        waiting += new
    return found


def violations(module: str, source: str) -> list[str]:
    """Return the imports of a module that the drawing or the homes of the libraries forbid."""
    if module == "recsys":
        return [f"recsys imports {name}" for name in imports_of(source)]
    found = []
    for name in imports_of(source):
        library = name.partition(".")[0]
        if name.startswith("."):
            found.append(f"{module} imports {name}, which is relative")
        elif library == "recsys" and not may_import(package_of(module), package_of(name)):
            found.append(f"{module} imports {name}")
        elif library in HOMES and not lives_in(library, module.removeprefix("recsys.")):
            found.append(f"{module} imports {library}")
    return found


def may_import(importer: str, imported: str) -> bool:
    return importer in PACKAGES and imported in {importer, *reached(importer, arrows())}


def lives_in(library: str, module: str) -> bool:
    return any(module == home or module.startswith(f"{home}.") for home in HOMES[library])


@pytest.mark.parametrize("module", MODULES)
def test_imports_keep_to_the_floors(module: str) -> None:
    assert violations(module, MODULES[module]) == []


@pytest.mark.parametrize("module", MODULES)
def test_a_module_is_short_enough_to_read(module: str) -> None:
    assert len(MODULES[module].splitlines()) < MAX_LINES


def test_the_modules_were_found() -> None:
    expected = {
        "recsys",
        "recsys.errors",
        "recsys.data.negatives",
        "recsys.search.tuning.trainable",
    }
    assert expected <= MODULES.keys()


def test_each_package_of_the_drawing_exists_and_is_on_no_circle() -> None:
    packages = {package_of(module) for module in MODULES if module != "recsys"}
    assert packages == PACKAGES
    assert [package for package in PACKAGES if package in reached(package, arrows())] == []


def test_each_arrow_is_an_import_that_no_other_arrows_imply() -> None:
    imported: dict[str, set[str]] = {package: set() for package in PACKAGES}
    for module, source in MODULES.items() - {("recsys", MODULES["recsys"])}:
        names = [name for name in imports_of(source) if name.startswith("recsys.")]
        imported[package_of(module)] |= {package_of(name) for name in names} - {package_of(module)}
    needed = {
        package: {to for to in found if not any(to in reached(other, imported) for other in found)}
        for package, found in imported.items()
        if found
    }
    assert arrows() == needed


@pytest.mark.parametrize(
    ("module", "source", "expected"),
    [
        # against the arrows, sideways, into a package that is not in the drawing
        (
            "recsys.data.interactions",
            "from recsys.training.fit import fit",
            ["recsys.training.fit.fit"],
        ),
        ("recsys.data.interactions", "from recsys import tune", ["recsys.tune"]),
        ("recsys.data.interactions", "import recsys.models.gmf", ["recsys.models.gmf"]),
        ("recsys.data.interactions", "from recsys.data import readers", ["recsys.data.readers"]),
        (
            "recsys.data.sources.files",
            "from recsys.data.readers import text",
            ["recsys.data.readers.text"],
        ),
        ("recsys.tracking.runs", "from recsys.search import tuning", ["recsys.search.tuning"]),
        ("recsys.config.schema", "from recsys.data import catalog", ["recsys.data.catalog"]),
        ("recsys.tune", "from recsys.helpers import x", ["recsys.helpers.x"]),
        ("recsys.helpers.x", "from recsys.errors import InputError", ["recsys.errors.InputError"]),
        ("recsys.errors", "from recsys import config", ["recsys.config"]),
        # an import within a function counts all the same
        ("recsys.config.schema", "def f():\n    from recsys.search import a", ["recsys.search.a"]),
        ("recsys.data.negatives", "from . import scan", ["., which is relative"]),
        ("recsys", "import os", ["os"]),
        # libraries away from home
        ("recsys.data.interactions", "import ray.data", ["ray"]),
        ("recsys.final_x", "import ray", ["ray"]),
        ("recsys.training.fit", "from ray import tune", ["ray"]),
        ("recsys.training.fit", "def f():\n    import optuna", ["optuna"]),
        ("recsys.search.record.study_record", "import mlflow.tracking as t", ["mlflow"]),
        ("recsys.command_line", "def f():\n    import torch", ["torch"]),
        ("recsys.data.negatives", "import torch", ["torch"]),
        ("recsys.data.interactions", "def f():\n    import torch", ["torch"]),
    ],
)
def test_a_violation_is_found(module: str, source: str, expected: list[str]) -> None:
    assert violations(module, source) == [f"{module} imports {name}" for name in expected]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("recsys.data.readers.text", "from recsys.data.readers import times\nimport numpy"),
        ("recsys.data.readers.text", "from recsys.data.plain_types import x"),
        ("recsys.config.files", "from recsys.config.schema import Config"),
        (
            "recsys.evaluation.baselines",
            "from recsys.evaluation.evaluate import evaluate\nimport torch",
        ),
        (
            "recsys.tune",
            "from recsys import command_line\ndef f():\n    from recsys.search import session",
        ),
        ("recsys.data.preprocessing.pipeline", "def f():\n    import ray"),
        ("recsys.training.negatives", "class A:\n    def f(self):\n        import torch"),
        ("recsys.search.space.search_space", "import optuna, ray"),
        ("recsys.tracking.runs", "import mlflow, rayon"),
    ],
)
def test_allowed_imports_are_not_reported(module: str, source: str) -> None:
    assert violations(module, source) == []


@pytest.mark.parametrize("command", COMMANDS)
def test_importing_a_command_imports_no_heavy_library(command: str) -> None:
    # --help and a mistake on the command line are answered at once.
    heavy = {*HOMES, "pandas", "pyarrow"}
    code = f"import sys, recsys.{command}; print(*({heavy!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == []


def test_importing_the_package_imports_nothing() -> None:
    code = (
        "import sys, recsys; print(*(name for name in sys.modules if name.startswith('recsys.')))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == []
