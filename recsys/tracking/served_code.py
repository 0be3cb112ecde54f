"""The code and the requirements in an MLflow model, which is served where recsys is not installed.

MLflow runs `served_model` with that code. The requirements cannot include recsys: the package index
has another author's package of that name.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

_PACKAGE = Path(__file__).parents[1]
_NEEDED = (
    "mlflow",
    "numpy",
    "pandas",
    "pyarrow",
    "pydantic",
    "ruamel.yaml",
    "safetensors",
    "torch",
)
"""Packages that `served_model` imports, itself or through recsys."""


def requirements() -> list[str]:
    """Return the packages that serving needs, in the versions that are installed here."""
    # Without a local version such as +cpu, which the package index does not have.
    return [f"{name}=={version(name).partition('+')[0]}" for name in _NEEDED]


@contextmanager
def copied_code() -> Iterator[Path]:
    """Yield a folder with a copy of recsys, without the embedded data, whose licence differs."""
    with TemporaryDirectory(prefix="recsys-code-") as folder:
        copy = Path(folder) / _PACKAGE.name
        for file in _PACKAGE.rglob("*.py"):
            target = copy / file.relative_to(_PACKAGE)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
        yield copy
