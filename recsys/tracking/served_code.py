"""The code and the requirements that an MLflow model brings along, so that it is served where recsys is not installed.

MLflow runs `served_model` on that code. A requirement named recsys would install another author's package from the package index.
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
"""What `served_model` and what it imports of recsys import."""


def requirements() -> list[str]:
    """Return the packages that serving needs, in the versions that are installed here."""
    # Without what comes after a plus, such as +cpu: the package index has no such build.
    return [f"{name}=={version(name).partition('+')[0]}" for name in _NEEDED]


@contextmanager
def copied_code() -> Iterator[Path]:
    """Yield a folder with a copy of recsys, without the embedded data, which have terms of their own."""
    with TemporaryDirectory(prefix="recsys-code-") as folder:
        copy = Path(folder) / _PACKAGE.name
        for file in _PACKAGE.rglob("*.py"):
            target = copy / file.relative_to(_PACKAGE)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
        yield copy
