"""Weights by recency: by hand, and in each kind of training."""

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recsys.config.schema import Config, replace_values
from recsys.data.interactions import Interactions
from recsys.models import build_model
from recsys.training import batches, full_softmax, least_squares, row_solver, segments
from recsys.training.batches import training_rows
from recsys.training.checkpoint import TrainingState
from recsys.training.contract import Batch, Rows
from recsys.training.fit import fit
from recsys.training.full_softmax import user_rows
from recsys.training.recency import recency_weights
from recsys.training.row_batch import RowBatch
from recsys.training.user_batch import UserBatch
from tests.training.small_data import make_interactions, two_tastes


def make_config(name: str = "inner_product", **training: Any) -> Config:
    settings = {"recency_half_life": 2.0, "recency_floor": 0.2, "n_negatives": 3, **training}
    return Config.model_validate(
        {"model": {"name": name, "embedding_dim": 4}, "training": settings}
    )


def ordered(data: Interactions, seed: int = 0) -> Interactions:
    """Return the data with the positives of each user in a random order of time."""
    random = np.random.default_rng(seed)
    counts = np.bincount(data.user, minlength=data.n_users)
    n_later = np.concatenate([random.permutation(count) for count in counts])
    return dataclasses.replace(data, n_later=n_later.astype(np.int32))


def weights_by_pair(config: Config, data: Interactions) -> dict[tuple[int, int], float]:
    weights = recency_weights(config.training, data)
    assert weights is not None
    pairs = zip(data.user.tolist(), data.item.tolist(), strict=True)
    return dict(zip(pairs, weights.tolist(), strict=True))


def test_weights_by_hand() -> None:
    data = dataclasses.replace(
        make_interactions(4, 4, [(0, 0), (0, 1), (0, 2), (2, 0), (2, 1)], []),
        n_later=np.array([1, 0, 4, 0, 0], dtype=np.int32),
    )
    training = make_config(recency_half_life=1.0, recency_floor=0.25).training
    # 1/2, 1, and the floor in place of 1/16; user 2's two are of the same time.
    expected = [0.5 / 1.75 * 3, 1 / 1.75 * 3, 0.25 / 1.75 * 3, 1, 1]
    assert recency_weights(training, data) == pytest.approx(np.array(expected))
    assert recency_weights(Config().training, data) is None


@pytest.mark.parametrize(
    # All columns of a row at once; two at a time; rows of few interactions.
    ("columns", "short_share"),
    [(64, 0), (2, 0), (64, 100)],
)
def test_least_squares_weighs_the_users_and_leaves_the_items_as_they_are(
    columns: int, short_share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(least_squares, "COLUMNS", columns)
    monkeypatch.setattr(row_solver, "SHORT_SHARE", short_share)
    data, epochs = ordered(two_tastes()), 150 if columns == 2 else 3
    config = make_config(loss="squared", l2=0.1, max_epochs=epochs)
    equal = replace_values(config, {"training.recency_half_life": None})
    *_, of_recent = fit(config, data, 0, rank=False)
    *_, of_equal = fit(equal, data, 0, rank=False)
    assert of_recent.metrics["train_loss"] == pytest.approx(of_equal.metrics["train_loss"])
    items, of_equal_items, users = (
        epoch.state.model.get_parameter(f"{side}.weight").detach()
        for epoch, side in ((of_recent, "items"), (of_equal, "items"), (of_recent, "users"))
    )
    assert torch.equal(items, of_equal_items)
    # A user's equations, from the loss of the module's text with a weight for each positive.
    weights = weights_by_pair(config, data)
    a, b = 3 * len(data.user) / (60 * 40), 0.1 / 4
    low = set(zip(data.low_user.tolist(), data.low_item.tolist(), strict=True))
    for user, found in enumerate(users):
        left, right = b * (8 + 40 * a) * torch.eye(4), torch.zeros(4)
        for item, vector in enumerate(items):
            weight = weights.get((user, item), 0.0)
            left += (weight + (0 if (user, item) in low else a)) * torch.outer(vector, vector)
            right += weight * vector
        assert torch.allclose(found, torch.linalg.solve(left, right), atol=1e-3)


def test_least_squares_with_weights_resumes_bit_for_bit_and_in_segments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(least_squares, "COLUMNS", 2)
    monkeypatch.setattr(row_solver, "SHORT_SHARE", 0)
    for module in (least_squares, row_solver):
        monkeypatch.setattr(module, "MAX_VALUES", 400)
    monkeypatch.setattr(segments, "SEGMENT", 160)  # of 480 positives
    config, data = make_config(loss="squared", l2=0.1, max_epochs=3), ordered(two_tastes())
    unbroken = []
    for epoch in fit(config, data, 0):
        unbroken.append(epoch.metrics)
        epoch.state.save(tmp_path / str(epoch.step))
    assert len(unbroken) == 9
    for step in (1, 2, 3, 4, 5):
        state = TrainingState.load(tmp_path / str(step), config, data.n_users, data.n_items, "cpu")
        resumed = [epoch.metrics for epoch in fit(config, data, 0, state=state)]
        for name in ("train_loss", "val_ndcg_at_10"):
            expected = [metrics[name] for metrics in unbroken[step - 1 :]]
            assert [metrics[name] for metrics in resumed] == expected


def batches_of(config: Config, data: Interactions, n_segments: int = 1) -> list[Batch]:
    is_full = config.training.negative_sampling == "all"
    rows: Rows = (user_rows if is_full else training_rows)(config, data, "cpu", n_segments)
    generator = torch.Generator().manual_seed(0)
    order = rows.shuffle(generator)
    each = (rows.batches(order, segment, generator) for segment in range(n_segments))
    return list(itertools.chain.from_iterable(each))


@pytest.mark.parametrize("negatives", ["uniform", "all"])
def test_each_positive_of_a_batch_has_its_weight(
    negatives: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "STRETCH", 150)
    monkeypatch.setattr(full_softmax, "MAX_ITEMS", 16)
    config = make_config(loss="softmax", negative_sampling=negatives, batch_size=100)
    data = ordered(two_tastes())
    found: dict[tuple[int, int], float] = {}
    for batch in batches_of(config, data, n_segments=2):
        if isinstance(batch, UserBatch):
            assert batch.item is not None
            user, item = batch.user[batch.row], batch.item[batch.column]
        else:
            assert isinstance(batch, RowBatch)
            user, item = batch.user, batch.item[:, 0]
        assert batch.weight is not None
        found |= dict(
            zip(zip(user.tolist(), item.tolist(), strict=True), batch.weight.tolist(), strict=True)
        )
    assert found == pytest.approx(weights_by_pair(config, data))


@pytest.mark.parametrize(
    ("name", "training"),
    [
        ("inner_product", {"loss": "bpr"}),
        ("gmf", {"loss": "bce"}),  # with the low ratings as rows of their own
        ("neumf", {"loss": "softmax", "negative_sampling": "popularity"}),
        ("gmf", {"loss": "softmax", "negative_sampling": "all"}),
    ],
)
def test_the_loss_is_the_weighted_mean_of_the_rows(name: str, training: dict[str, Any]) -> None:
    config = make_config(name, l2=0.1, batch_size=10_000, **training)
    data = ordered(two_tastes())
    model = build_model(config.model, 60, 40, torch.Generator().manual_seed(0))
    (batch,) = batches_of(config, data)
    assert isinstance(batch, RowBatch | UserBatch)
    assert batch.weight is not None
    none, n = torch.zeros_like(batch.weight), len(batch.weight)

    def loss(weight: torch.Tensor) -> float:
        return float(
            dataclasses.replace(batch, weight=weight).loss(model, config.training).detach()
        )

    of_low = loss(none)
    of_each = [loss(none.index_fill(0, torch.tensor([row]), 1.0)) - of_low for row in range(n)]
    expected = of_low + float(torch.tensor(of_each) @ batch.weight)
    assert loss(batch.weight) == pytest.approx(expected, rel=1e-3)
    equal = dataclasses.replace(batch, weight=None).loss(model, config.training)
    assert float(equal.detach()) == pytest.approx(of_low + sum(of_each), rel=1e-3)
    assert (of_low > 0) == (training["loss"] == "bce")
