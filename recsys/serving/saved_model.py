"""The folder that final training writes and that evaluation and recommendation read.

    model.safetensors   the weights, a checksum in the header
    config.yaml         the complete config
    users.parquet       user, user_id, seen (the items of all its interactions), trained (false: no positive to learn it from)
    items.parquet       item, item_id, title (null where there is none)
    metrics.json        what final training measured

Nothing in it is unpickled or run. It is complete or not there at all: written beside its place, then renamed.
"""

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from recsys.config.files import config_yaml, parse_config, read_yaml
from recsys.config.schema import Config
from recsys.data.negatives import UserItemIndex
from recsys.errors import InputError
from recsys.models import Model, build_model
from recsys.storage.files import require_readable, write_folder
from recsys.storage.s3 import fetch_folder, list_folder, upload_folder
from recsys.training.checkpoint import write_tensors

FILES = ("model.safetensors", "config.yaml", "users.parquet", "items.parquet", "metrics.json")
_USER_TYPES = {
    "user": (pa.int32(),),
    "user_id": (pa.int64(), pa.string()),
    "seen": (pa.list_(pa.int32()),),
}
_ITEM_TYPES = {"item": (pa.int32(),), "item_id": (pa.int64(), pa.string()), "title": (pa.string(),)}


@dataclass(frozen=True)
class SavedModel:
    """A trained model and what it takes to answer in the user's own ids.

    `user_ids` (n_users,), `item_ids` (n_items,): Arrow arrays, int64 or string, in the order of the contiguous ids. `titles`
    (n_items,): Arrow strings, null where an item has none. `seen`: every item that a user interacted with, test included.
    `is_trained` (n_users,) bool: false where training had no positive of the user, whose row of the weights is noise.
    """

    config: Config
    model: Model
    user_ids: pa.Array
    item_ids: pa.Array
    titles: pa.Array
    seen: UserItemIndex
    is_trained: npt.NDArray[np.bool_]
    metrics: Mapping[str, Any]


def find(model: Path, folder: Path) -> Path:
    """The model's folder from a path, or from the name that it has in `folder`/models.

    Raises:
        InputError: if neither is there; if it can't be told, as a folder above may not be read.
    """
    for path in (model, folder / "models" / model):
        fetch_folder(path)
        with require_readable(path):
            if path.is_dir():
                return path
    known = sorted(name for name in list_folder(folder / "models") if not name.startswith("."))
    remedy = (
        f"Models here: {', '.join(known)}." if known else "Train one with `python -m recsys.train`."
    )
    raise InputError(
        model,
        f"must be a model's folder or a name in {folder / 'models'}",
        "no such folder",
        remedy,
    )


def require_replaceable(folder: Path) -> None:
    """Check that a model may be written to `folder`: there is nothing, or an earlier model. One in S3 is brought here.

    Raises:
        InputError: if there is something else.
    """
    fetch_folder(folder)
    blocking = next(
        (parent for parent in folder.parents if parent.exists() and not parent.is_dir()), None
    )
    if blocking is not None:
        raise InputError(
            folder,
            "must lie in a folder",
            f"the file {blocking} above it",
            "Choose another folder.",
        )
    if not folder.exists():
        return
    foreign = (
        sorted(path.name for path in folder.iterdir() if path.name not in FILES)
        if folder.is_dir()
        else ["a file"]
    )
    if foreign:
        raise InputError(
            folder,
            "must be free or a model's folder",
            f"{foreign[0]} there",
            "Choose another folder.",
        )


def save(folder: Path, saved: SavedModel) -> None:
    """Write the folder; an earlier model in its place is replaced.

    Raises:
        InputError: if something else is in its place.
    """
    require_replaceable(folder)
    weights = {
        name: weight.detach().cpu().contiguous()
        for name, weight in saved.model.state_dict().items()
    }
    seen = pa.ListArray.from_arrays(
        pa.array(saved.seen.offsets, pa.int32()), pa.array(saved.seen.items, pa.int32())
    )
    users = {
        "user": np.arange(len(saved.user_ids), dtype=np.int32),
        "user_id": _plain_ids(saved.user_ids),
        "seen": seen,
    }
    users["trained"] = saved.is_trained
    items = {
        "item": np.arange(len(saved.item_ids), dtype=np.int32),
        "item_id": _plain_ids(saved.item_ids),
    }
    items["title"] = saved.titles.cast(pa.string())
    with write_folder(folder) as partial:
        write_tensors(weights, partial / "model.safetensors", {"checksum": _checksum(weights)})
        (partial / "config.yaml").write_text(config_yaml(saved.config), encoding="utf-8")
        (partial / "metrics.json").write_text(
            json.dumps(dict(saved.metrics), indent=2) + "\n", encoding="utf-8"
        )
        pq.write_table(pa.table(users), partial / "users.parquet", write_page_checksum=True)
        pq.write_table(pa.table(items), partial / "items.parquet", write_page_checksum=True)
    upload_folder(folder, last="metrics.json")


def load(folder: Path) -> SavedModel:
    """Read a folder that `save` wrote, on the CPU, after checking that its files are whole and belong together.

    Raises:
        InputError: if the folder or one of its files is missing; if the folder or one of its files may not be read; if a file is
            damaged or of another model, or one does not belong there or leads elsewhere.
    """
    with require_readable(folder):
        _require_files(folder)
    config = parse_config(read_yaml(folder / "config.yaml"), str(folder / "config.yaml"))
    users = _read_table(folder / "users.parquet", _USER_TYPES)
    # Models saved before there was this column do not name the users without a positive.
    is_trained = (
        users["trained"].to_numpy()
        if "trained" in users.column_names
        else np.ones(len(users), dtype=bool)
    )
    items = _read_table(folder / "items.parquet", _ITEM_TYPES)
    seen = users["seen"].combine_chunks()
    index = UserItemIndex(
        seen.offsets.to_numpy().astype(np.int64), seen.values.to_numpy(), len(items)
    )
    if len(index.items) and not (index.items.min() >= 0 and index.items.max() < len(items)):
        raise _damaged(
            folder / "users.parquet", f"seen items beyond the {len(items)} of items.parquet"
        )
    model = build_model(config.model, len(users), len(items), torch.Generator())
    model.load_state_dict(_read_weights(folder / "model.safetensors", model.state_dict()))
    user_ids, item_ids, titles = (
        t[c].combine_chunks() for t, c in ((users, "user_id"), (items, "item_id"), (items, "title"))
    )
    return SavedModel(
        config,
        model.eval(),
        user_ids,
        item_ids,
        titles,
        index,
        is_trained,
        _read_metrics(folder / "metrics.json"),
    )


def _require_files(folder: Path) -> None:
    if not folder.is_dir():
        raise InputError(
            folder,
            "must be a model's folder",
            "no such folder",
            "Train a model with `python -m recsys.train`.",
        )
    for name in FILES:
        if not (folder / name).is_file():
            raise InputError(
                f"{folder / name}", "must be there", "no such file", "Train the model again."
            )
        with (folder / name).open(
            "rb"
        ):  # pyarrow and safetensors report a file that they may not read as damaged or missing
            pass
    foreign = sorted(
        path.name for path in folder.iterdir() if path.name not in FILES or path.is_symlink()
    )
    if foreign:
        raise InputError(
            folder, "must hold a model's own files alone", f"{foreign[0]}", "Train the model again."
        )


def _read_table(path: Path, types: dict[str, tuple[pa.DataType, ...]]) -> pa.Table:
    """A table whose columns have the wanted types and no nulls but titles, numbered from 0 in the first of them."""
    try:
        table = pq.read_table(path, partitioning=None, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, str(error)) from None
    for name, allowed in types.items():
        if name not in table.column_names or table.schema.field(name).type not in allowed:
            raise _damaged(path, f"no column {name} of type {' or '.join(map(str, allowed))}")
        if name != "title" and table[name].null_count:
            raise _damaged(path, f"{table[name].null_count} nulls in column {name}")
    number = next(iter(types))
    if not np.array_equal(table[number].to_numpy(), np.arange(len(table))):
        raise _damaged(path, f"a column {number} that does not count from 0")
    return table


def _read_weights(path: Path, wanted: dict[str, Tensor]) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, the file is no mapping
            checksum = (file.metadata() or {}).get("checksum")
    except SafetensorError as error:
        raise _damaged(path, str(error)) from None
    if checksum != _checksum(weights):
        raise _damaged(path, "weights that do not match their checksum")
    shapes, wanted_shapes = (
        {name: (*weight.shape,) for name, weight in tensors.items()}
        for tensors in (weights, wanted)
    )
    different = sorted(
        name
        for name in shapes.keys() | wanted_shapes.keys()
        if shapes.get(name) != wanted_shapes.get(name)
    )
    if different:
        name = different[0]
        raise _damaged(
            path,
            f"{name} of shape {shapes.get(name)}, where config, users and items ask for {wanted_shapes.get(name)}",
        )
    return weights


def _read_metrics(path: Path) -> dict[str, Any]:
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise _damaged(path, str(error)) from None
    if not isinstance(metrics, dict):
        raise _damaged(path, f"a {type(metrics).__name__}")
    return metrics


def _damaged(path: Path, found: str) -> InputError:
    return InputError(
        path,
        "must be whole and of this model",
        f"{' '.join(found.split())}",
        "Train the model again.",
    )


def _checksum(weights: dict[str, Tensor]) -> str:
    value = 0
    for name in sorted(weights):
        value = zlib.crc32(weights[name].numpy().tobytes(), zlib.crc32(name.encode(), value))
    return f"{value:08x}"


def _plain_ids(ids: pa.Array) -> pa.Array:
    return ids.cast(pa.int64() if pa.types.is_integer(ids.type) else pa.string())
