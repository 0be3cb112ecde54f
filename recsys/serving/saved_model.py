"""A trained model with everything that recommendations need, written to a folder and read back.

Final training writes it (`model_folder` lists the files); evaluation, recommendation and MLflow's
served models read it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from recsys.config.files import config_yaml, dump_yaml, parse_config, read_yaml
from recsys.config.schema import Config
from recsys.data.negatives import UserItemIndex
from recsys.models import Model, build_model
from recsys.models.ensemble import Ensemble
from recsys.serving.checked_files import (
    checksum_of,
    damaged,
    read_items,
    read_metrics,
    read_users,
    read_weights,
)
from recsys.serving.model_folder import require_files, require_replaceable
from recsys.storage.files import require_readable, write_folder
from recsys.storage.s3 import upload_folder
from recsys.training.checkpoint import write_tensors

_OF_A_MEMBER = {"model", "training"}
"""Sections of the config that a search space may search."""


@dataclass(frozen=True)
class SavedModel:
    """A trained model with the data set's own ids.

    Attributes:
        config: the config that it was trained with; for an ensemble, that of the study's best
            trial.
        members: the configs of an ensemble's members, in their order; empty for any other model.
        model: the model, in evaluation mode once it is loaded.
        user_ids: the users' own ids, an Arrow array (n_users,) of int64 or strings, by user.
        item_ids: the items' own ids, an Arrow array (n_items,) of int64 or strings, by item.
        titles: the items' titles, Arrow strings (n_items,), null for none.
        seen: each user's items, those of test too unless validation alone was scored.
        is_trained: whether the model was given a positive of the user, in training or, of a user
            who is held out whole, beside it, (n_users,) bool. Without one, the model says nothing
            about the user.
        metrics: the scores of final training, and facts about its data.
    """

    config: Config
    model: Model
    user_ids: pa.Array
    item_ids: pa.Array
    titles: pa.Array
    seen: UserItemIndex
    is_trained: npt.NDArray[np.bool_]
    metrics: Mapping[str, Any]
    members: Sequence[Config] = ()


def save(folder: Path, saved: SavedModel) -> None:
    """Write the folder, whole or not at all, in place of an earlier model.

    Raises:
        InputError: if the folder holds anything else.
    """
    require_replaceable(folder)
    weights = {
        name: weight.detach().cpu().contiguous()
        for name, weight in saved.model.state_dict().items()
    }
    header = {"checksum": checksum_of(weights)}
    metrics = json.dumps(dict(saved.metrics), indent=2) + "\n"
    with write_folder(folder) as partial:
        write_tensors(weights, partial / "model.safetensors", header)
        (partial / "config.yaml").write_text(_config_text(saved), encoding="utf-8")
        (partial / "metrics.json").write_text(metrics, encoding="utf-8")
        pq.write_table(_users_table(saved), partial / "users.parquet", write_page_checksum=True)
        pq.write_table(_items_table(saved), partial / "items.parquet", write_page_checksum=True)
    upload_folder(folder, last="metrics.json")


def load(folder: Path) -> SavedModel:
    """Read a folder that `save` wrote, onto the CPU, and check that its files belong together.

    Raises:
        InputError: if the folder or a file is missing or not readable; if a file is damaged or of
            another model; if there is any other file, or a link.
    """
    with require_readable(folder):
        require_files(folder)
    config, members = _read_configs(folder / "config.yaml")
    users = read_users(folder / "users.parquet")
    items = read_items(folder / "items.parquet")
    seen = _read_seen(users, len(items), folder / "users.parquet")
    model = _build(config, members, len(users), len(items))
    model.load_state_dict(read_weights(folder / "model.safetensors", model.state_dict()))
    # Models of earlier versions have no column `trained`.
    has_trained = "trained" in users.column_names
    return SavedModel(
        config=config,
        members=members,
        model=model.eval(),
        user_ids=users["user_id"].combine_chunks(),
        item_ids=items["item_id"].combine_chunks(),
        titles=items["title"].combine_chunks(),
        seen=seen,
        is_trained=users["trained"].to_numpy() if has_trained else np.ones(len(users), dtype=bool),
        metrics=read_metrics(folder / "metrics.json"),
    )


def _config_text(saved: SavedModel) -> str:
    """Return `config.yaml`. An ensemble's has `members`, the sections in which they differ."""
    if not saved.members:
        return config_yaml(saved.config)
    members = [member.model_dump(mode="json", include=_OF_A_MEMBER) for member in saved.members]
    return dump_yaml({**saved.config.model_dump(mode="json"), "members": members})


def _read_configs(path: Path) -> tuple[Config, list[Config]]:
    """Return the config, and the configs of an ensemble's members.

    Raises:
        InputError: if the file is damaged or a value is wrong.
    """
    tree = read_yaml(path)
    members = tree.pop("members", [])
    if not isinstance(members, list) or not all(isinstance(member, dict) for member in members):
        raise damaged(path, "members that are no list of configs")
    return parse_config(tree, str(path)), [
        parse_config({**tree, **member}, f"{path}, member {number}")
        for number, member in enumerate(members, start=1)
    ]


def _build(config: Config, members: Sequence[Config], n_users: int, n_items: int) -> Model:
    """Return a model, or an ensemble, whose weights are to be loaded."""
    models = [
        build_model(member.model, n_users, n_items, torch.Generator())
        for member in members or [config]
    ]
    for model in models:
        model.end_training()
    return Ensemble.without_weights(models, n_users) if members else models[0]


def _users_table(saved: SavedModel) -> pa.Table:
    seen = pa.ListArray.from_arrays(
        pa.array(saved.seen.offsets, pa.int32()), pa.array(saved.seen.items, pa.int32())
    )
    columns = {
        "user": np.arange(len(saved.user_ids), dtype=np.int32),
        "user_id": _plain_ids(saved.user_ids),
        "seen": seen,
        "trained": saved.is_trained,
    }
    return pa.table(columns)


def _items_table(saved: SavedModel) -> pa.Table:
    columns = {
        "item": np.arange(len(saved.item_ids), dtype=np.int32),
        "item_id": _plain_ids(saved.item_ids),
        "title": saved.titles.cast(pa.string()),
    }
    return pa.table(columns)


def _plain_ids(ids: pa.Array) -> pa.Array:
    """Return ids as int64 or strings, whatever their width in the data."""
    return ids.cast(pa.int64() if pa.types.is_integer(ids.type) else pa.string())


def _read_seen(users: pa.Table, n_items: int, path: Path) -> UserItemIndex:
    """Return the seen items of each user.

    Raises:
        InputError: if an item is null or beyond `n_items`; it names `path`.
    """
    lists = users["seen"].combine_chunks()
    if lists.values.null_count:
        raise damaged(path, f"{lists.values.null_count} nulls in lists of column seen")
    items = lists.values.to_numpy()
    if len(items) and not (items.min() >= 0 and items.max() < n_items):
        raise damaged(path, f"seen items beyond the {n_items} of items.parquet")
    return UserItemIndex(lists.offsets.to_numpy().astype(np.int64), items, n_items)
