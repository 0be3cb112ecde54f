"""Processed data on disk: the pipeline writes them, and every later step reads them.

A folder `processed/<fingerprint>` holds `manifest.json`, `users.parquet` and `items.parquet` (the
data's own ids by contiguous id, and titles). The interactions are in files, one for each bucket of
users and each of these kinds; empty files are left out:

- `train`, `validation`, `test`: the positives of a split;
- `train_low`, `validation_low`, `test_low`: its low ratings;
- `validation_cold`, `test_cold`: its positives of users without one in an earlier split.

Nothing here imports ray.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from recsys.config.schema import Config, replace_values
from recsys.data.interactions import HeldOut, Interactions
from recsys.data.manifest import Manifest
from recsys.data.negatives import UserItemIndex, index_pairs
from recsys.data.plain_types import require_plain
from recsys.data.ranked_users import choose_every, choose_max_users
from recsys.data.splits import HELD_OUT_SPLITS, HeldOutSplit
from recsys.errors import InputError
from recsys.kernels.arrays import IntArray

_PAIR = pa.schema({"user": pa.int32(), "item": pa.int32()})


@dataclass(frozen=True)
class Processed:
    """A complete folder of processed data."""

    path: Path
    fingerprint: str
    manifest: Manifest


def uses_candidates(config: Config, given: bool) -> bool:
    """Return whether held-out items are ranked among candidates.

    `given`: whether the data have their own candidates.
    """
    return (
        given if config.evaluation.protocol == "auto" else config.evaluation.protocol == "sampled"
    )


def resolve(config: Config, manifest: Manifest) -> Config:
    """Return the config with each `auto` of `evaluation` replaced by what the data ask for.

    Raises:
        InputError: if a value of `evaluation.k` exceeds the number of ranked items.
    """
    given = manifest.n_candidates_given
    longest = max(config.evaluation.k)
    if longest > manifest.n_items:
        raise InputError(
            "evaluation.k",
            f"must be at most the number of items, {manifest.n_items}",
            longest,
            "Lower it.",
        )
    if not uses_candidates(config, given is not None):
        return _resolve_ranking(config, manifest, "full", None)
    n_candidates = config.evaluation.n_candidates
    n_candidates = n_candidates if given is None else min(given, n_candidates)
    if longest > n_candidates + 1:
        raise InputError(
            "evaluation.k",
            f"must be at most the ranked candidates, {n_candidates + 1}",
            longest,
            "Lower it.",
        )
    return _resolve_ranking(config, manifest, "sampled", n_candidates)


def _resolve_ranking(
    config: Config, manifest: Manifest, protocol: str, n_candidates: int | None
) -> Config:
    """Return the config with its protocol, and with the users and the epochs that are ranked."""
    max_users, every = config.evaluation.max_users, config.evaluation.every
    if max_users == "auto":
        max_users = choose_max_users(manifest, n_candidates)
    if every == "auto":
        every = choose_every(manifest, n_candidates, max_users)
    return replace_values(
        config,
        {
            "evaluation.protocol": protocol,
            "evaluation.max_users": max_users,
            "evaluation.every": every,
        },
    )


def load(processed: Processed, split: HeldOutSplit, negatives: bool) -> Interactions:
    """Read the data in memory to train and to rank a held-out split.

    For "validation", training has train alone; for "test", train and validation. Files of later
    splits are not opened.

    Args:
        processed: the folder to read.
        split: the split that is held out.
        negatives: whether to read the fixed negatives of training. "test" has none.

    Raises:
        InputError: if a file is damaged.
    """
    n_users, n_items = processed.manifest.n_users, processed.manifest.n_items
    with_negatives = negatives and split == "validation"
    train = _read(processed, ["train"], with_negatives)
    user, item = _pairs(train)
    low_user, low_item = _pairs(_read(processed, ["train_low"]))
    if split == "test":
        more = _pairs(_read(processed, ["validation", "validation_cold"]))
        user, item = _sorted_pairs(np.r_[user, more[0]], np.r_[item, more[1]])
        more = _pairs(_read(processed, ["validation_low"]))
        low_user, low_item = _sorted_pairs(np.r_[low_user, more[0]], np.r_[low_item, more[1]])
    is_trained = np.bincount(user, minlength=n_users) > 0
    return Interactions(
        n_users=n_users,
        n_items=n_items,
        user=user,
        item=item,
        negatives=_matrix(train, "negatives") if with_negatives else None,
        low_user=low_user,
        low_item=low_item,
        seen=index_pairs(np.r_[user, low_user], np.r_[item, low_item], n_users, n_items),
        held_out=_load_held_out(processed, split, is_trained),
    )


def _load_held_out(
    processed: Processed, split: HeldOutSplit, is_trained: npt.NDArray[np.bool_]
) -> HeldOut:
    """Read a held-out split. `is_trained` (n_users,): users with a training positive."""
    positives = _read(processed, [split], all_columns=True)
    user, item = _pairs(positives)
    low_user, low_item = _pairs(_read(processed, [f"{split}_low"]))
    is_kept = is_trained[low_user]
    return HeldOut(
        user=user,
        item=item,
        low_user=low_user[is_kept],
        low_item=low_item[is_kept],
        negatives=_matrix(positives, "negatives"),
        candidates=_matrix(positives, "candidates"),
    )


def all_pairs(processed: Processed) -> UserItemIndex:
    """Return the positives and low ratings of each user in every split."""
    kinds = [
        "train",
        "train_low",
        *(f"{split}{kind}" for split in HELD_OUT_SPLITS for kind in ("", "_low", "_cold")),
    ]
    user, item = _pairs(_read(processed, kinds))
    return index_pairs(user, item, processed.manifest.n_users, processed.manifest.n_items)


def user_ids(processed: Processed) -> pa.Array:
    """Return the data's own user ids by contiguous id: int64 or string."""
    return _column(processed, "users", "user_id")


def item_ids(processed: Processed) -> pa.Array:
    """Return the data's own item ids by contiguous id: int64 or string."""
    return _column(processed, "items", "item_id")


def item_titles(processed: Processed) -> pa.Array:
    """Return the items' titles by contiguous id, null for items without one."""
    return _column(processed, "items", "title")


def _column(processed: Processed, name: str, column: str) -> pa.Array:
    return _read_file(processed.path / f"{name}.parquet", [column])[column].combine_chunks()


def _read(processed: Processed, kinds: Sequence[str], all_columns: bool = False) -> pa.Table:
    """Return the rows of some kinds of files, one bucket after another for each kind.

    Columns are users and items, or all.
    """
    columns = None if all_columns else list(_PAIR.names)
    names = [
        name
        for kind in kinds
        for name in sorted(processed.manifest.files)
        if name.startswith(f"{kind}-")
    ]
    return pa.concat_tables(
        [_read_file(processed.path / name, columns) for name in names] or [_PAIR.empty_table()]
    )


def _read_file(path: Path, columns: list[str] | None) -> pa.Table:
    try:
        table = pq.read_table(
            path, columns=columns, page_checksum_verification=True, partitioning=None
        )
    except (OSError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            path,
            "must be a whole Parquet file",
            found=f"is damaged ({reason})",
            remedy="Delete its folder to prepare the data again.",
        ) from None
    require_plain(table.schema, table.column_names, str(path))
    return table


def _pairs(table: pa.Table) -> tuple[IntArray, IntArray]:
    return table["user"].to_numpy(), table["item"].to_numpy()


def _matrix(table: pa.Table, name: str) -> IntArray | None:
    """Return a column of lists of one length as (n, length) int32, None if there is none."""
    if name not in table.column_names:
        return None
    lists = table[name].combine_chunks()
    values: IntArray = lists.flatten().to_numpy()
    return values.reshape(len(lists), lists.type.list_size)


def _sorted_pairs(user: IntArray, item: IntArray) -> tuple[IntArray, IntArray]:
    order = np.lexsort((item, user))
    return user[order], item[order]
