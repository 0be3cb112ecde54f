"""Signature, code and requirements of an MLflow model, served where recsys is not installed.

MLflow runs `served_model` with that code. The requirements cannot include recsys: the package index
has another author's package of that name.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
from mlflow.models import ModelSignature
from mlflow.types.schema import Array, ColSpec, DataType, ParamSchema, ParamSpec, Schema, TensorSpec

from recsys.serving.saved_model import SavedModel

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


def signature_of(saved: SavedModel) -> ModelSignature:
    """Return the columns that `predict` takes and returns, and its parameter `k`.

    It takes `user_id`, `history` or both. A model that cannot fold in users refuses histories
    itself: MLflow would drop a column that the signature lacks, and answer without it.
    """
    user, item = _type_of(saved.user_ids), _type_of(saved.item_ids)
    inputs: list[ColSpec | TensorSpec] = [
        ColSpec(user, "user_id", required=False),
        ColSpec(Array(item), "history", required=False),
    ]
    outputs: list[ColSpec | TensorSpec] = [
        ColSpec(user, "user_id"),
        ColSpec(DataType.long, "rank"),
        ColSpec(item, "item_id"),
        ColSpec(DataType.float, "score"),
        ColSpec(DataType.string, "title", required=False),
    ]
    params = ParamSchema([ParamSpec("k", DataType.long, 10)])
    return ModelSignature(Schema(inputs), Schema(outputs), params)


def _type_of(ids: pa.Array) -> DataType:
    return DataType.long if pa.types.is_integer(ids.type) else DataType.string


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
