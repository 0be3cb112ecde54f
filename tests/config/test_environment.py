"""The environment variables that recsys sets: in one module, before the libraries are imported."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from recsys.config import environment

ROOT = Path(__file__).parents[2]
CHANGES = {"setdefault", "update", "pop", "clear", "__setitem__", "putenv", "unsetenv"}


def changes_environment(node: ast.AST) -> bool:
    """Whether a node sets or deletes an environment variable."""
    if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
        return ast.unparse(node.value).endswith("environ")
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        owner = ast.unparse(node.func.value)
        return node.func.attr in CHANGES and (owner.endswith("environ") or owner == "os")
    return False


def test_one_module_sets_environment_variables() -> None:
    setting = {
        str(file.relative_to(ROOT))
        for file in (ROOT / "recsys").rglob("*.py")
        if any(map(changes_environment, ast.walk(ast.parse(file.read_text(encoding="utf-8")))))
    }
    assert setting == {"recsys/config/environment.py"}


@pytest.mark.parametrize(
    ("package", "variable", "expected"),
    [
        ("cluster", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0"),
        ("search.tuning", "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1"),
        ("tracking", "MLFLOW_HTTP_REQUEST_TIMEOUT", "10"),
    ],
)
def test_a_package_sets_them_before_its_modules_import_the_library(
    package: str, variable: str, expected: str
) -> None:
    code = (
        f"import os, sys, recsys.{package}\n"
        f"print(os.environ.get({variable!r}), *({{'ray', 'mlflow'}} & sys.modules.keys()))"
    )
    command = [sys.executable, "-c", code]
    without = {name: value for name, value in os.environ.items() if name != variable}
    for environ, answer in ((without, expected), ({**without, variable: "7"}, "7")):
        done = subprocess.run(
            command, check=True, capture_output=True, text=True, cwd=ROOT, env=environ
        )
        assert done.stdout.split() == [answer]


def test_a_login_is_set_where_mlflow_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, "")  # restored after the test
        monkeypatch.delenv(name)
    assert environment.mlflow_login() is None
    environment.set_mlflow_login("ann", "secret")
    assert environment.mlflow_login() == ("ann", "secret")
    assert os.environ["MLFLOW_TRACKING_USERNAME"] == "ann"
