"""Reading of a saved model's files, each checked for damage and for its schema."""

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError, safe_open
from torch import Tensor

from recsys.errors import InputError

_USER_TYPES = {
    "user": (pa.int32(),),
    "user_id": (pa.int64(), pa.string()),
    "seen": (pa.list_(pa.int32()),),
}
_ITEM_TYPES = {"item": (pa.int32(),), "item_id": (pa.int64(), pa.string()), "title": (pa.string(),)}


def read_users(path: Path) -> pa.Table:
    """Return the table of `users.parquet`: user, user_id, seen and, in newer models, trained.

    Raises:
        InputError: if the file is damaged or a column is missing, of another type or has nulls.
    """
    table = _read_table(path, _USER_TYPES)
    if "trained" in table.column_names:
        _require_column(table, "trained", (pa.bool_(),), path)
    return table


def read_items(path: Path) -> pa.Table:
    """Return the table of `items.parquet`: item, item_id and title.

    Raises:
        InputError: as `read_users`; titles may be null.
    """
    return _read_table(path, _ITEM_TYPES)


def read_weights(path: Path, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights by name.

    Raises:
        InputError: if the file is damaged; if names or shapes differ from those of `expected`.
    """
    try:
        with safe_open(path, framework="pt") as file:
            names = file.keys()  # the file itself is not a mapping
            weights = {name: file.get_tensor(name) for name in names}
            checksum = (file.metadata() or {}).get("checksum")
    except SafetensorError as error:
        raise damaged(path, str(error)) from None
    if checksum != checksum_of(weights):
        raise damaged(path, "weights that do not match their checksum")
    for name in sorted(weights.keys() | expected.keys()):
        shape, expected_shape = (
            tuple(tensors[name].shape) if name in tensors else None
            for tensors in (weights, expected)
        )
        if shape != expected_shape:
            raise damaged(
                path,
                f"{name} of shape {shape}, where config, users and items ask for {expected_shape}",
            )
    return weights


def read_metrics(path: Path) -> dict[str, Any]:
    """Return the metrics of final training.

    Raises:
        InputError: if the file is damaged.
    """
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise damaged(path, str(error)) from None
    if not isinstance(metrics, dict):
        raise damaged(path, f"a {type(metrics).__name__}")
    return metrics


def checksum_of(weights: Mapping[str, Tensor]) -> str:
    """Return the CRC-32 of names and weights on the CPU, in the order of the names."""
    value = 0
    for name in sorted(weights):
        value = zlib.crc32(weights[name].numpy().tobytes(), zlib.crc32(name.encode(), value))
    return f"{value:08x}"


def damaged(path: Path, found: str) -> InputError:
    """Return the error of a file with damaged content, or with the content of another model."""
    return InputError(
        path,
        "must be an intact file of this model",
        " ".join(found.split()),
        "Train the model again.",
    )


def _read_table(path: Path, types: Mapping[str, tuple[pa.DataType, ...]]) -> pa.Table:
    """Return a table after checking its columns, of which the first must count from 0."""
    try:
        table = pq.read_table(path, partitioning=None, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        raise damaged(path, str(error)) from None
    for name, allowed in types.items():
        _require_column(table, name, allowed, path)
    first = next(iter(types))
    if not np.array_equal(table[first].to_numpy(), np.arange(len(table))):
        raise damaged(path, f"a column {first} that does not count from 0")
    return table


def _require_column(
    table: pa.Table, name: str, allowed: tuple[pa.DataType, ...], path: Path
) -> None:
    if name not in table.column_names or table.schema.field(name).type not in allowed:
        raise damaged(path, f"no column {name} of type {' or '.join(map(str, allowed))}")
    if name != "title" and table[name].null_count:
        raise damaged(path, f"{table[name].null_count} nulls in column {name}")
