"""The processed data on disk: what the pipeline writes and everything behind it reads.

A folder `processed/<fingerprint>` holds `users.parquet` and `items.parquet` (contiguous and own ids, titles), `manifest.json`,
and the interactions in files of one bucket of users each, none where a bucket has nothing of a kind: for each part `train`,
`validation` and `test` its positives and `<part>_low` its low ratings, for the held-out parts `<part>_cold` the positives of
users without one in an earlier part. Nothing here imports ray.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, ValidationError

from recsys.config.schema import Config, replace_values
from recsys.data.interactions import HeldOut, Interactions
from recsys.data.negatives import IntArray, UserItemIndex, index_pairs
from recsys.data.plain_types import require_plain
from recsys.data.splits import HELD_OUT_SPLITS, HeldOutSplit
from recsys.errors import InputError

FORMAT_VERSION = 2
"""Raised when the content or the layout of the folder changes."""

_PAIR = pa.schema({"user": pa.int32(), "item": pa.int32()})


class Manifest(BaseModel):
    """What the processed data are and where they come from."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    format_version: int
    """Layout of the folder."""
    source: str
    """The data set's name or path."""
    checksum: str
    """SHA-256 over the source files' contents."""
    settings: dict[str, Any]
    """Every config value that shaped the result."""
    n_users: int
    """Users, those included who only train."""
    n_items: int
    """Items of the catalogue, those with low ratings alone included."""
    n_interactions: int
    """Distinct pairs of user and item after the filters."""
    n_positives: int
    """Interactions rated at least `data.positive_threshold`."""
    n_low: int
    """Interactions rated lower."""
    n_train: int
    """Training positives."""
    n_validation: int
    """Positives held out for validation, of users with one in train."""
    n_test: int
    """Positives held out for test, of users with one in train or validation."""
    n_duplicates: int
    """Rows that a later one of the same user and item in the same part replaced."""
    n_overlaps: int
    """Rows of a given split that stand in a later part too and are kept there alone."""
    n_cold_validation_users: int
    """Users without a positive in train, whose positives of validation the search cannot rank."""
    n_cold_users: int
    """Users without a positive in train or validation, whose positives of test are not scored."""
    n_candidates_given: int | None
    """Most candidates of a test positive in the data's own candidate file, None without one."""
    notes: list[str]
    """How the files were read where users can't be sure of it, such as the unit of the times."""
    seconds: float
    """Time that the preprocessing took."""
    files: dict[str, int]
    """Size in bytes of each file of the folder."""

    def counts(self) -> dict[str, int]:
        """Every count by its name, such as `n_users`."""
        return {
            name: value
            for name, value in self.model_dump().items()
            if name.startswith("n_") and value is not None
        }


@dataclass(frozen=True)
class Processed:
    """A folder of processed data that was found whole."""

    path: Path
    fingerprint: str
    manifest: Manifest


def read_manifest(path: Path) -> Manifest | None:
    """The manifest of a processed folder, None where the folder is missing, half-written or damaged."""
    try:
        manifest = Manifest.model_validate_json((path / "manifest.json").read_bytes())
        whole = all((path / name).stat().st_size == size for name, size in manifest.files.items())
    except (OSError, ValidationError):
        return None
    return manifest if whole and manifest.format_version == FORMAT_VERSION else None


def uses_candidates(config: Config, given: bool) -> bool:
    """Return whether held-out items are ranked among candidates; `given`: whether the data bring their own."""
    return (
        given if config.evaluation.protocol == "auto" else config.evaluation.protocol == "sampled"
    )


def resolve(config: Config, manifest: Manifest) -> Config:
    """Return the config with what the data decide: `evaluation.protocol` is full or sampled instead of auto.

    Raises:
        InputError: if a list of `evaluation.k` is longer than what is ranked.
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
        return replace_values(config, {"evaluation.protocol": "full"})
    n_ranked = (
        min(
            given if given is not None else config.evaluation.n_candidates,
            config.evaluation.n_candidates,
        )
        + 1
    )
    if longest > n_ranked:
        raise InputError(
            "evaluation.k",
            f"must be at most the ranked candidates, {n_ranked}",
            longest,
            "Lower it.",
        )
    return replace_values(config, {"evaluation.protocol": "sampled"})


def load(processed: Processed, part: HeldOutSplit, negatives: bool) -> Interactions:
    """Return the in-memory form: "validation" trains on train alone, "test" on train and validation; each holds out its part.

    Files of later parts are not opened.

    Args:
        processed: the folder to read.
        part: the part that is held out.
        negatives: whether to read the fixed negatives of training too, which "test" does not have.

    Raises:
        InputError: if a file is damaged.
    """
    n_users, n_items = processed.manifest.n_users, processed.manifest.n_items
    with_negatives = negatives and part == "validation"
    train = _read(processed, ["train"], with_negatives)
    user, item = _pairs(train)
    low_user, low_item = _pairs(_read(processed, ["train_low"]))
    if part == "test":
        more = _pairs(_read(processed, ["validation", "validation_cold"]))
        user, item = _sorted_pairs(np.r_[user, more[0]], np.r_[item, more[1]])
        more = _pairs(_read(processed, ["validation_low"]))
        low_user, low_item = _sorted_pairs(np.r_[low_user, more[0]], np.r_[low_item, more[1]])
    held_out = _read(processed, [part], all_columns=True)
    held_user, held_item = _pairs(held_out)
    held_low_user, held_low_item = _pairs(_read(processed, [f"{part}_low"]))
    is_trained = np.bincount(user, minlength=n_users)[held_low_user] > 0
    return Interactions(
        n_users=n_users,
        n_items=n_items,
        user=user,
        item=item,
        negatives=_matrix(train, "negatives") if with_negatives else None,
        low_user=low_user,
        low_item=low_item,
        seen=index_pairs(np.r_[user, low_user], np.r_[item, low_item], n_users, n_items),
        held_out=HeldOut(
            user=held_user,
            item=held_item,
            low_user=held_low_user[is_trained],
            low_item=held_low_item[is_trained],
            negatives=_matrix(held_out, "negatives"),
            candidates=_matrix(held_out, "candidates"),
        ),
    )


def all_pairs(processed: Processed) -> UserItemIndex:
    """Return all that each user has interacted with: positives and low ratings of every part."""
    kinds = [
        "train",
        "train_low",
        *(f"{part}{kind}" for part in HELD_OUT_SPLITS for kind in ("", "_low", "_cold")),
    ]
    user, item = _pairs(_read(processed, kinds))
    return index_pairs(user, item, processed.manifest.n_users, processed.manifest.n_items)


def user_ids(processed: Processed) -> pa.Array:
    """The data's own user ids by contiguous id: int64 or string."""
    return _column(processed, "users", "user_id")


def item_ids(processed: Processed) -> pa.Array:
    """The data's own item ids by contiguous id: int64 or string."""
    return _column(processed, "items", "item_id")


def item_titles(processed: Processed) -> pa.Array:
    """The items' titles by contiguous id, null where the data name none."""
    return _column(processed, "items", "title")


def _column(processed: Processed, name: str, column: str) -> pa.Array:
    return _read_file(processed.path / f"{name}.parquet", [column])[column].combine_chunks()


def _read(processed: Processed, kinds: Sequence[str], all_columns: bool = False) -> pa.Table:
    """Return the rows of some kinds of files, bucket by bucket of each kind: users and items, or all columns."""
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
            remedy="Delete its folder to make it anew.",
        ) from None
    require_plain(table.schema, table.column_names, str(path))
    return table


def _pairs(table: pa.Table) -> tuple[IntArray, IntArray]:
    return table["user"].to_numpy(), table["item"].to_numpy()


def _matrix(table: pa.Table, name: str) -> IntArray | None:
    """A column of lists of one length as (n, length) int32, None where the table lacks it."""
    if name not in table.column_names:
        return None
    lists = table[name].combine_chunks()
    values: IntArray = lists.flatten().to_numpy()
    return values.reshape(len(lists), lists.type.list_size)


def _sorted_pairs(user: IntArray, item: IntArray) -> tuple[IntArray, IntArray]:
    order = np.lexsort((item, user))
    return user[order], item[order]
