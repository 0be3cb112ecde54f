"""The processed data on disk: what the pipeline writes and everything behind it reads.

A folder `processed/<fingerprint>` holds `users.parquet` and `items.parquet` (contiguous and own ids, titles), the interactions
in `train-`, `validation-`, `test-`, `low-` and `cold-` files of one bucket of users each, and `manifest.json`. Nothing here
imports ray.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, ValidationError

from recsys.config import Config, replace_values
from recsys.data.interactions import HeldOut, Interactions
from recsys.data.negatives import IntArray, UserItemIndex, index_pairs
from recsys.data.plain_types import require_plain
from recsys.data.splits import TEST, VALIDATION

FORMAT_VERSION = 2
"""Raised when the content or the layout of the folder changes."""

Part = Literal["validation", "test"]


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
    """Positives held out for validation."""
    n_test: int
    """Positives held out for test."""
    n_duplicates: int
    """Rows that a later one of the same user and item in the same part replaced."""
    n_overlaps: int
    """Rows of a given split that stand in a later part too and are kept there alone."""
    n_cold_users: int
    """Users without a training positive, whose held-out positives are left out."""
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
        return {name: value for name, value in self.model_dump().items() if name.startswith("n_") and value is not None}


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
    """Whether held-out items are ranked among candidates: data that bring their own decide unless the config asks for `full`."""
    asked = "protocol" in config.evaluation.model_fields_set
    return config.evaluation.protocol == "sampled" or (given and not asked)


def resolve(config: Config, manifest: Manifest) -> Config:
    """The config with what the data decide: `evaluation.protocol` is sampled where they bring candidates.

    Raises:
        ValueError: if a list of `evaluation.k` is longer than what is ranked.
    """
    given = manifest.n_candidates_given
    longest = max(config.evaluation.k)
    if longest > manifest.n_items:
        raise ValueError(f"evaluation.k: must be at most the number of items, {manifest.n_items}, but got {longest}. Lower it.")
    if not uses_candidates(config, given is not None):
        return config
    n_ranked = min(given if given is not None else config.evaluation.n_candidates, config.evaluation.n_candidates) + 1
    if longest > n_ranked:
        raise ValueError(f"evaluation.k: must be at most the ranked candidates, {n_ranked}, but got {longest}. Lower it.")
    return replace_values(config, {"evaluation.protocol": "sampled"})


def load(processed: Processed, part: Part, negatives: bool) -> Interactions:
    """The in-memory form: "validation" holds out validation and never opens test; "test" trains on train and validation.

    `negatives`: read the fixed negatives of training too, which "test" does not have.

    Raises:
        ValueError: if a file is damaged.
    """
    n_users, n_items = processed.manifest.n_users, processed.manifest.n_items
    with_negatives = negatives and part == "validation"
    train = _read(processed, "train", ["user", "item", *(["negatives"] if with_negatives else [])])
    user, item = _ints(train, "user"), _ints(train, "item")
    if part == "test":
        validation = _read(processed, "validation", ["user", "item"])
        user, item = _sorted_pairs(np.r_[user, _ints(validation, "user")], np.r_[item, _ints(validation, "item")])
    low = _read(processed, "low", ["user", "item", "part"])
    low_user, low_item, low_part = _ints(low, "user"), _ints(low, "item"), _ints(low, "part")
    code = VALIDATION if part == "validation" else TEST
    trained, held = low_part < code, low_part == code
    held_out = _read(processed, part, None)
    return Interactions(
        n_users=n_users,
        n_items=n_items,
        user=user,
        item=item,
        negatives=_matrix(train, "negatives") if with_negatives else None,
        low_user=low_user[trained],
        low_item=low_item[trained],
        known=index_pairs(np.r_[user, low_user], np.r_[item, low_item], n_users, n_items),
        held_out=HeldOut(
            user=_ints(held_out, "user"),
            item=_ints(held_out, "item"),
            low_user=low_user[held],
            low_item=low_item[held],
            negatives=_matrix(held_out, "negatives"),
            candidates=_matrix(held_out, "candidates"),
        ),
    )


def all_pairs(processed: Processed) -> UserItemIndex:
    """Everything that each user has interacted with: positives of all parts and low ratings."""
    tables = [_read(processed, kind, ["user", "item"]) for kind in ("train", "validation", "test", "low", "cold")]
    user, item = (np.concatenate([_ints(table, name) for table in tables]) for name in ("user", "item"))
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


def _read(processed: Processed, kind: str, columns: list[str] | None) -> pa.Table:
    names = sorted(name for name in processed.manifest.files if name.startswith(f"{kind}-"))
    return pa.concat_tables([_read_file(processed.path / name, columns) for name in names])


def _read_file(path: Path, columns: list[str] | None) -> pa.Table:
    try:
        table = pq.read_table(path, columns=columns, page_checksum_verification=True, partitioning=None)
    except (OSError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"{path}: must be a whole Parquet file, but is damaged ({reason}). Delete its folder to make it anew."
        ) from None
    require_plain(table.schema, table.column_names, str(path))
    return table


def _ints(table: pa.Table, name: str) -> IntArray:
    values: IntArray = table[name].to_numpy()
    return values


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
