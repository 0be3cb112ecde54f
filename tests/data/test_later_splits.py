"""Rows of a later split change nothing before it: no training data, draws, weights or ranks."""

import dataclasses
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.config.schema import Config, replace_values
from recsys.data.interactions import Interactions
from recsys.data.manifest import Manifest
from recsys.data.preprocessing.bucket_splits import Plan
from recsys.data.preprocessing.buckets import Bucket, Rows
from recsys.data.preprocessing.processed_files import write_bucket
from recsys.data.preprocessing.split_strategies import random_split
from recsys.data.processed import Processed, load
from recsys.data.splits import TEST, TRAIN, VALIDATION, HeldOutSplit
from recsys.evaluation.baselines import popularity_of
from recsys.evaluation.evaluate import evaluate, score_labelled
from recsys.evaluation.metrics import auc
from recsys.evaluation.scorers import ModelScorer
from recsys.kernels.arrays import IntArray
from recsys.training.fit import fit
from tests.data.conftest import Prepare

N_USERS, N_ITEMS, N_PAIRS = 5, 24, 5 * 24
PLAN = Plan(
    n_users=N_USERS, n_items=N_ITEMS, strategy="given", seed=0, n_negatives=3, has_times=True,
    test_fraction=0.3, validation_fraction=0.3, n_candidates=4, n_candidates_given=None,
    validation_start=100 * VALIDATION, test_start=100 * TEST,
)  # fmt: skip
USER, ITEM = (ids.ravel().astype(np.int32) for ids in np.indices((N_USERS, N_ITEMS)))
HASHED = random_split(USER, ITEM, 3, PLAN.test_fraction, PLAN.validation_fraction)


@dataclasses.dataclass(frozen=True)
class Table:
    """For every pair of user and item: presence before and after, split, and label."""

    before: npt.NDArray[np.bool_]
    after: npt.NDArray[np.bool_]
    split: IntArray
    positive: npt.NDArray[np.bool_]


def table_of(strategy: str, last_code: int, seed: int, share: float) -> Table:
    """Return a random table.

    It adds pairs of splits above `last_code`. Each user has unseen items.
    """
    random = np.random.default_rng(seed)
    split = HASHED if strategy == "random" else random.integers(0, 3, N_PAIRS)
    is_present = (random.random(N_PAIRS) < share) & (ITEM < N_ITEMS - 6)
    added = (
        ~is_present & (split > last_code) & (random.random(N_PAIRS) < 0.5) & (ITEM < N_ITEMS - 6)
    )
    return Table(is_present, is_present | added, split, random.random(N_PAIRS) < 0.6)


def processed_of(
    table: Table, present: npt.NDArray[np.bool_], strategy: str, folder: Path, seed: int = 3
) -> Processed:
    """One bucket, written as the pipeline writes it."""
    split = table.split[present]
    rows = Rows(
        USER[present],
        ITEM[present],
        table.positive[present],
        100 * split.astype(np.int64) + (7 * USER + 13 * ITEM)[present] % 100,
        np.arange(len(split)),
        split.astype(np.int8),
    )
    nothing = rows.take(slice(0, 0))
    plan = dataclasses.replace(PLAN, strategy=strategy, seed=seed)  # type: ignore[arg-type]
    result = write_bucket(Bucket(rows, nothing, 0, 0), plan, folder, 0)
    assert [*result.saturated, *result.short, *result.unmatched] == []
    fields = dict.fromkeys(Manifest.model_fields, 0) | {
        "source": "s",
        "checksum": "c",
        "settings": {},
        "notes": [],
        "has_times": True,
    }
    files = {path.name: path.stat().st_size for path in folder.glob("*.parquet")}
    numbers = {**result.counts, "n_users": N_USERS, "n_items": N_ITEMS, "n_candidates_given": None}
    kept = {name: value for name, value in numbers.items() if name in Manifest.model_fields}
    return Processed(folder, "f", Manifest.model_validate({**fields, **kept, "files": files}))


def arrays_of(data: Interactions, with_held_out: bool) -> dict[str, list[object]]:
    arrays = {
        name: getattr(data, name)
        for name in ("user", "item", "n_later", "n_recent", "negatives", "low_user", "low_item")
    }
    arrays |= {"offsets": data.seen.offsets, "seen": data.seen.items}
    if with_held_out:
        assert data.held_out is not None
        arrays |= {f"held_out.{name}": value for name, value in vars(data.held_out).items()}
    return {name: [] if array is None else array.tolist() for name, array in arrays.items()}


@pytest.mark.parametrize("strategy", ["given", "temporal", "random"])
@pytest.mark.parametrize(
    ("split", "added_after", "with_held_out"),
    [("validation", VALIDATION, True), ("validation", TRAIN, False), ("test", VALIDATION, False)],
)
@settings(max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), share=st.sampled_from([0.15, 0.4, 0.7]))
def test_later_rows_change_nothing(
    strategy: str,
    split: HeldOutSplit,
    added_after: int,
    with_held_out: bool,
    seed: int,
    share: float,
) -> None:
    table = table_of(strategy, added_after, seed, share)
    if not (table.before & table.positive & (table.split == TRAIN)).any():
        return
    if not all(
        (table.before & table.positive & (table.split == code)).any() for code in (VALIDATION, TEST)
    ):
        return
    found = []
    for present in (table.before, table.after):
        with tempfile.TemporaryDirectory() as folder:
            found.append(
                arrays_of(
                    load(processed_of(table, present, strategy, Path(folder)), split, True),
                    with_held_out,
                )
            )
    assert found[0] == found[1]


def test_interactions_of_each_split(tmp_path: Path) -> None:
    # User 0 by item: train 0 (low), 1 (high); validation 2 (low), 3 (high); test 4 (low), 5
    # (high). Others have seen no item.
    user_0 = USER == 0
    split = np.where(ITEM < 2, TRAIN, np.where(ITEM < 4, VALIDATION, TEST))
    table = Table(user_0 & (ITEM < 6), user_0 & (ITEM < 6), split, ITEM % 2 == 1)
    processed = processed_of(table, table.before, "given", tmp_path)
    validation, test = load(processed, "validation", True), load(processed, "test", True)
    assert validation.seen.items.tolist() == [0, 1]
    assert (validation.item.tolist(), validation.low_item.tolist()) == ([1], [0])
    assert test.seen.items.tolist() == [0, 1, 2, 3]
    assert (test.item.tolist(), test.low_item.tolist()) == ([1, 3], [0, 2])
    assert validation.held_out is not None
    assert test.held_out is not None
    assert (validation.held_out.item.tolist(), validation.held_out.low_item.tolist()) == ([3], [2])
    assert (test.held_out.item.tolist(), test.held_out.low_item.tolist()) == ([5], [4])


def test_every_item_unknown_to_a_split_is_drawn(tmp_path: Path) -> None:
    # User 0 by item: train below 6, validation 6 and 7, test 8 to 17; items 0, 7 and 9 high, the
    # others low.
    split = np.where(ITEM < 6, TRAIN, np.where(ITEM < 8, VALIDATION, TEST))
    present = (USER == 0) & (ITEM < 18)
    table = Table(present, present, split, np.isin(ITEM, [0, 7, 9]))
    negatives: set[int] = set()
    validation: set[int] = set()
    test: set[int] = set()
    for seed in range(100):
        folder = tmp_path / str(seed)
        folder.mkdir()
        processed = processed_of(table, present, "given", folder, seed)
        before, after = load(processed, "validation", True), load(processed, "test", True)
        assert before.negatives is not None
        negatives |= set(before.negatives.ravel().tolist())
        for data, drawn in ((before, validation), (after, test)):
            assert data.held_out is not None
            assert data.held_out.candidates is not None
            drawn |= set(data.held_out.candidates.ravel().tolist())
    # 18 items in 300 draws: one is missed with a probability of 18 (17/18)^300 < 1e-6, and with
    # less of 16 and 6 items in 400 draws.
    assert negatives == set(range(6, N_ITEMS))
    assert validation == set(range(8, N_ITEMS))
    assert test == set(range(18, N_ITEMS))


TRAINED: dict[str, dict[str, object]] = {
    "bce": {"training.loss": "bce"},
    "bce without low ratings": {"training.loss": "bce", "data.low_ratings": "ignore"},
    "bce with fixed negatives": {
        "training.loss": "bce",
        "training.resample_negatives": False,
        "training.n_negatives": 3,
    },
    "bpr": {"training.loss": "bpr", "training.negative_sampling": "popularity"},
    "softmax": {"training.loss": "softmax"},
    "softmax of all": {"training.loss": "softmax", "training.negative_sampling": "all"},
    "squared": {"training.loss": "squared", "training.l2": 0.1},
    "softmax by recency": {"training.loss": "softmax", "training.recency_half_life": 2.0},
    "squared by recency": {
        "training.loss": "squared",
        "training.l2": 0.1,
        "training.recency_half_life": 2.0,
    },
}


@pytest.mark.parametrize("loss", TRAINED)
@pytest.mark.parametrize("protocol", ["full", "sampled"])
def test_no_loss_and_no_protocol_looks_ahead(loss: str, protocol: str, tmp_path: Path) -> None:
    values: dict[str, object] = {
        "model.name": "inner_product",
        "evaluation.k": 3,
        "evaluation.n_candidates": 4,
        "evaluation.protocol": protocol,
    }
    config = replace_values(Config(), {**values, "training.max_epochs": 2, **TRAINED[loss]})
    reported: list[list[dict[str, float]]] = []
    for place in ("before", "after"):
        table = table_of("random", VALIDATION, seed=1, share=0.4)
        (tmp_path / place).mkdir()
        data = load(
            processed_of(table, getattr(table, place), "random", tmp_path / place),
            "validation",
            True,
        )
        epochs = [dict(epoch.metrics) for epoch in fit(config, data, seed=5)]
        reported.append(
            [{name: v for name, v in epoch.items() if "second" not in name} for epoch in epochs]
        )
    assert table_of("random", VALIDATION, seed=1, share=0.4).after.sum() > table.before.sum()
    assert len(reported[0]) == 2
    assert "val_auc" in reported[0][0]
    assert reported[0] == reported[1]


def write_low_cases(folder: Path) -> dict[str, str]:
    """Return six users on a ring of ten items.

    Each has seen three items; validation is the item six further on, and test the one after.
    """
    header = "user_id,item_id,rating\n"
    rows = {
        "train": [f"{user},{(user + step) % 10},5" for user in range(6) for step in range(3)],
        "validation": [f"{user},{(user + 6) % 10},5" for user in range(6)],
        "test": [f"{user},{(user + 7) % 10},5" for user in range(6)],
    }
    rows["test_with_lows"] = rows["test"] + [
        f"{user},{(user + step) % 10},1" for user in range(6) for step in (3, 4, 5, 8)
    ]
    for name, lines in rows.items():
        (folder / f"{name}.csv").write_text(header + "\n".join(lines) + "\n")
    return {name: str(folder / f"{name}.csv") for name in rows}


def test_low_ratings_of_test_are_items_like_any_other_in_validation(
    prepared: Prepare, tmp_path: Path
) -> None:
    files = write_low_cases(tmp_path)
    found = []
    for test in ("test", "test_with_lows"):
        given_files = {
            "train": files["train"],
            "validation": files["validation"],
            "test": files[test],
        }
        processed = prepared(None, {"data.files": given_files})
        data = load(processed, "validation", True)
        found.append(
            (
                arrays_of(data, True),
                evaluate(
                    popularity_of(data), data, Config.model_validate({"evaluation": {"k": 3}})
                ),
            )
        )
    assert found[0] == found[1]
    # Each user has three unseen items with more positives in train than its target has.
    assert found[0][1]["hit_rate_at_3"] == 0.0


def test_likes_and_dislikes_by_coin_flips_are_not_separated(
    prepared: Prepare, tmp_path: Path
) -> None:
    random = np.random.default_rng(0)
    rows = [
        f"{user},{item},{5 if random.random() < 0.5 else 1}"
        for user in range(150)
        for item in random.permutation(60)[:40].tolist()
    ]
    (tmp_path / "coin.csv").write_text("user_id,item_id,rating\n" + "\n".join(rows) + "\n")
    values = {
        "data.source": str(tmp_path / "coin.csv"),
        "data.split": "random",
        "data.low_ratings": "ignore",
    }
    model = {"model.name": "inner_product", "model.embedding_dim": 32}
    training = {"training.max_epochs": 30, "training.learning_rate": 0.02}
    config = replace_values(Config(), {**values, **model, **training})
    data = load(prepared(tmp_path / "coin.csv", values), "test", False)
    *_, last = fit(config, data, seed=0, rank=False)
    assert data.held_out is not None
    held_out = dataclasses.replace(
        data.held_out, negatives=np.empty((len(data.held_out.user), 0), dtype=np.int32)
    )
    with torch.inference_mode():
        scores, labels = score_labelled(ModelScorer(last.state.model, data.n_items), held_out)
    n_likes, n_dislikes = int(labels.sum()), int((~labels).sum())
    standard_error = ((n_likes + n_dislikes + 1) / (12 * n_likes * n_dislikes)) ** 0.5
    assert abs(auc(scores, labels) - 0.5) < 4 * standard_error
