import dataclasses
import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recsys.config.components import LOSSES, MODELS, LossEntry
from recsys.config.schema import Config
from recsys.data.interactions import Interactions
from recsys.training import optimiser
from recsys.training.checkpoint import TrainingState, start_training
from recsys.training.fit import Epoch, fit
from recsys.training.segments import segment_seed
from tests.training.small_data import make_interactions, two_tastes, with_fixed_negatives

FAST = {"batch_size": 64, "learning_rate": 0.02, "max_epochs": 8}


def make_config(
    model: dict[str, Any] | None = None,
    evaluation: dict[str, Any] | None = None,
    **training: object,
) -> Config:
    small = {"name": "neumf", "embedding_dim": 4, "n_layers": 2}
    return Config.model_validate(
        {
            "model": small | (model or {}),
            "training": FAST | training,
            "evaluation": evaluation or {},
        }
    )


def weights(state: TrainingState) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in state.model.state_dict().items()}


def run(
    config: Config, data: Interactions, n_epochs: int | None = None, **arguments: Any
) -> list[Epoch]:
    return list(fit(config, data, 0, n_epochs=n_epochs, **arguments))


@pytest.mark.parametrize(
    ("name", "loss"),
    [
        (name, loss)
        for name, loss in itertools.product(MODELS, LOSSES)
        if LOSSES[loss].solver == "gradient_descent"
        if LOSSES[loss].full_code is not None or not MODELS[name].reads_histories
    ],
)
def test_every_model_learns_with_every_loss(name: str, loss: str) -> None:
    # A user has 20 items to its taste and has seen 8 of them: the best possible rank is about 6 of
    # 30, by chance 15.
    reads_histories = MODELS[name].reads_histories
    config = make_config(
        # The weights of several steps would make the loss of 60 users a rough estimate.
        {"name": name, "embedding_dim": 8, "noise_steps": 1},
        evaluation={"k": [12]},
        loss=loss,
        negative_sampling="all" if reads_histories else "uniform",
        # With .02, layers of 600 values leave the minimum again, at an epoch that rounding decides.
        learning_rate=0.005 if reads_histories else 0.02,
        max_epochs=12,
    )
    epochs = run(config, two_tastes())
    assert epochs[-1].metrics["train_loss"] < 0.8 * epochs[0].metrics["train_loss"]
    assert max(epoch.metrics["val_hit_rate_at_12"] for epoch in epochs) > 0.85


HARD = [
    {"loss": "bce", "balance": True, "l2": 0.01, "learning_rate_decay": "linear"},
    {"loss": "softmax", "negative_sampling": "popularity", "learning_rate_decay": "cosine"},
    {"loss": "bpr", "resample_negatives": False},
]


@pytest.fixture(params=["on whole embeddings", "by rows"])
def update(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Update these small embeddings as the optimiser chooses to, and in the other way."""
    if request.param == "by rows":
        monkeypatch.setattr(optimiser, "MIN_VALUES", -math.inf)


@pytest.mark.parametrize("training", HARD)
def test_training_by_rows_equals_training_of_whole_embeddings(
    training: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config({"dropout": 0.3}, **training)
    data = with_fixed_negatives(two_tastes(), 4)
    expected = run(config, data, n_epochs=3)
    monkeypatch.setattr(optimiser, "MIN_VALUES", -math.inf)
    epochs = run(config, data, n_epochs=3)
    for epoch, other in zip(epochs, expected, strict=True):
        assert epoch.metrics["train_loss"] == pytest.approx(other.metrics["train_loss"], rel=1e-4)
    trained = weights(epochs[-1].state)
    # A user's bias cancels out in the losses of pairs: its gradient is a rounding error, and so is
    # Adam's step.
    cancelled = () if training["loss"] == "bce" else ("intercepts.everywhere", "intercepts.user")
    for name in trained.keys() - set(cancelled):
        torch.testing.assert_close(
            trained[name], weights(expected[-1].state)[name], rtol=1e-2, atol=1e-3
        )


@pytest.mark.parametrize("training", HARD)
@pytest.mark.usefixtures("update")
def test_a_resumed_training_equals_an_uninterrupted_one_bit_for_bit(
    training: dict[str, Any], tmp_path: Path
) -> None:
    config = make_config({"dropout": 0.3}, **training)
    data = with_fixed_negatives(two_tastes(), 4)
    unbroken = [
        (epoch.metrics["train_loss"], epoch.metrics["val_ndcg_at_10"], weights(epoch.state))
        for epoch in fit(config, data, 3)
    ]
    for epoch in fit(config, data, 3, n_epochs=3):
        epoch.state.save(tmp_path / "state")
    torch.manual_seed(99)
    state = TrainingState.load(tmp_path / "state", config, data.n_users, data.n_items, "cpu")
    assert state.epoch == 3
    best = max(range(3), key=lambda number: unbroken[number][1])
    assert (state.best_epoch, state.best_value) == (best + 1, unbroken[best][1])
    resumed = [
        (epoch.metrics["train_loss"], epoch.metrics["val_ndcg_at_10"], weights(epoch.state))
        for epoch in fit(config, data, 3, state=state)
    ]
    # The epoch that was saved comes first, since it may not have been reported.
    assert len(resumed) == 6
    for (loss, value, after), (expected_loss, expected_value, expected) in zip(
        resumed, unbroken[2:], strict=True
    ):
        assert (loss, value) == (expected_loss, expected_value)
        assert all(torch.equal(after[name], expected[name]) for name in expected)


def test_segments_of_an_epoch_are_reported_and_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, data = make_config({"dropout": 0.3}), two_tastes()
    monkeypatch.setattr("recsys.training.fit.SEGMENT_USERS", 7)
    whole = run(config, data, n_epochs=2)
    monkeypatch.setattr("recsys.training.segments.SEGMENT", 160)  # of 480 positives
    unbroken = []
    for number, epoch in enumerate(fit(config, data, 0, n_epochs=2)):
        unbroken.append(epoch)
        epoch.state.save(tmp_path / str(number))
    assert [(epoch.epoch, epoch.step) for epoch in unbroken] == [
        (1, 1),
        (1, 2),
        (1, 3),
        (2, 4),
        (2, 5),
        (2, 6),
    ]
    assert [epoch.step for epoch in unbroken if epoch.whole] == [3, 6]
    assert [epoch.step for epoch in unbroken if epoch.is_last] == [6]
    for first, second, third in (unbroken[:3], unbroken[3:]):
        for name in ("train_seconds", "rank_seconds"):
            assert first.metrics[name] < second.metrics[name] < third.metrics[name]
    # The loss is the mean over the epoch's rows, not over the last segment's: it differs from the
    # loss of an epoch of one segment by other draws alone.
    assert [unbroken[n].metrics["train_loss"] for n in (2, 5)] == pytest.approx(
        [epoch.metrics["train_loss"] for epoch in whole], rel=0.05
    )
    # 7 users make hit rates of sevenths; all 40 are ranked at the end of the epoch.
    assert all(
        (7 * unbroken[n].metrics["val_hit_rate_at_10"]) % 1 == pytest.approx(0, abs=1e-9)
        for n in (0, 1, 3, 4)
    )
    assert unbroken[-1].state.best_epoch in (1, 2)
    for number in (1, 2):
        state = TrainingState.load(
            tmp_path / str(number), config, data.n_users, data.n_items, "cpu"
        )
        resumed = list(fit(config, data, 0, n_epochs=2, state=state))
        # The saved segment comes first, since it may not have been reported.
        assert [epoch.step for epoch in resumed] == list(range(number + 1, 7))
        for epoch, expected in zip(resumed, unbroken[number:], strict=True):
            for name in ("train_loss", "val_ndcg_at_10"):
                assert epoch.metrics[name] == expected.metrics[name]


def test_seeds_differ_by_seed_epoch_and_segment() -> None:
    assert (
        len(
            {
                segment_seed(seed, epoch, segment)
                for seed in range(10)
                for epoch in range(10)
                for segment in range(10)
            }
        )
        == 1000
    )
    data, config = two_tastes(), make_config()
    first, same = (start_training(config, data.n_users, data.n_items, 4, "cpu") for _ in range(2))
    assert all(
        torch.equal(a, b)
        for a, b in zip(first.model.parameters(), same.model.parameters(), strict=True)
    )


def test_the_global_generator_is_left_as_it_was() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    for _ in fit(make_config({"dropout": 0.5}), two_tastes(), 0, n_epochs=2):
        assert torch.equal(torch.get_rng_state(), before)


def test_metrics_that_an_epoch_reports() -> None:
    epochs = run(make_config(evaluation={"k": [5, 10]}), two_tastes(), n_epochs=2)
    assert [(epoch.epoch, epoch.is_last) for epoch in epochs] == [(1, False), (2, True)]
    values = {
        f"val_{name}_at_{k}" for name in ("ndcg", "hit_rate", "mrr", "recall") for k in (5, 10)
    }
    assert set(epochs[0].metrics) == values | {
        "val_ndcg_at_5_se",
        "train_loss",
        "train_seconds",
        "rank_seconds",
        "samples_per_second",
    }
    samples = 480 * 5 + 120
    assert epochs[0].metrics["samples_per_second"] == pytest.approx(
        samples / epochs[0].metrics["train_seconds"]
    )


def test_without_ranking_nothing_is_held_out_and_no_epoch_is_best() -> None:
    *_, last = run(make_config(), two_tastes(), n_epochs=2, rank=False)
    assert set(last.metrics) == {"train_loss", "train_seconds", "samples_per_second"}
    assert last.state.best_weights is None


def test_the_loss_of_the_first_step_is_the_mean_over_rows() -> None:
    # Embeddings near 0 and no biases: every logit is 0, so a positive's row costs 5 ln 2 and an
    # explicit negative's ln 2.
    config = make_config(
        {"name": "inner_product", "init_std": 1e-6, "bias": False}, learning_rate=1e-12
    )
    (epoch,) = run(config, two_tastes(), n_epochs=1)
    assert epoch.metrics["train_loss"] == pytest.approx((480 * 5 + 120) / 600 * np.log(2), rel=1e-5)


def test_l2_is_added_to_every_row() -> None:
    data = make_interactions(2, 4, [(0, 1)], [], low=[(1, 2)])
    data = dataclasses.replace(data, negatives=np.array([[3]], dtype=np.int32))
    model = {"name": "inner_product", "embedding_dim": 1, "bias": False}
    config = make_config(
        model, l2=10.0, n_negatives=1, resample_negatives=False, learning_rate=1e-12
    )
    state = start_training(config, 2, 4, 0, "cpu")
    state.model.load_state_dict(
        {
            "users.weight": torch.tensor([[1.0], [2.0]]),
            "items.weight": torch.tensor([[9.0], [0.0], [3.0], [1.0]]),
        }
    )
    (epoch,) = run(config, data, n_epochs=1, state=state, rank=False)
    # User 0: item 1 with logit 0 and the negative 3 with logit 1. User 1: item 2 alone with logit 6
    # and label 0.
    row = np.log(2) + np.log1p(np.exp(1)) + 10 * (1 + (0 + 1) / 2)
    low_row = np.log1p(np.exp(6)) + 10 * (4 + 9)
    assert epoch.metrics["train_loss"] == pytest.approx((row + low_row) / 2, rel=1e-5)


def test_the_learning_rate_falls_over_max_epochs_whatever_n_epochs_says() -> None:
    def rates(decay: str | None) -> list[float]:
        config = make_config(max_epochs=4, learning_rate=0.8, learning_rate_decay=decay)
        return [
            epoch.state.adam.learning_rate
            for epoch in fit(config, two_tastes(), 0, n_epochs=3, rank=False)
        ]

    assert rates(None) == pytest.approx([0.8, 0.8, 0.8])
    assert rates("linear") == pytest.approx([0.8, 0.6, 0.4])
    assert rates("cosine") == pytest.approx([0.8, 0.4 * (1 + np.sqrt(0.5)), 0.4])


def test_patience_ends_a_training_and_the_best_weights_are_kept() -> None:
    config = make_config(max_epochs=60, patience=2, learning_rate=0.05)
    values, all_weights = [], []
    for epoch in fit(config, two_tastes(), 0):
        values.append(epoch.metrics["val_ndcg_at_10"])
        all_weights.append(weights(epoch.state))
    best = values.index(max(values))
    assert len(values) == best + 1 + 2 < 60
    assert epoch.is_last
    assert (epoch.state.best_epoch, epoch.state.best_value) == (best + 1, values[best])
    assert epoch.state.best_weights is not None
    assert all(
        torch.equal(weight, all_weights[best][name])
        for name, weight in epoch.state.best_weights.items()
    )


def test_every_second_epoch_and_the_last_are_ranked() -> None:
    def values(every: int) -> list[float | None]:
        config = make_config(max_epochs=5, evaluation={"every": every})
        return [epoch.metrics.get("val_ndcg_at_10") for epoch in fit(config, two_tastes(), 0)]

    each = values(1)
    assert values(2) == [None, each[1], None, each[3], each[4]]
    config = make_config(max_epochs=5, evaluation={"every": 2})
    first = next(fit(config, two_tastes(), 0))
    assert set(first.metrics) == {"train_loss", "train_seconds", "samples_per_second"}
    assert first.state.best_weights is None


@pytest.mark.parametrize("patience", [1, 2, 3, 4])
def test_patience_counts_epochs_since_the_best_ranked_one(patience: int) -> None:
    def trained(every: int, patience: int | None) -> list[Epoch]:
        config = make_config(
            evaluation={"every": every}, max_epochs=24, patience=patience, learning_rate=0.05
        )
        return list(fit(config, two_tastes(), 0))

    each = {epoch.epoch: epoch.metrics["val_ndcg_at_10"] for epoch in trained(1, None)}
    best = 3
    for end in range(3, 25, 3):
        best = end if each[end] > each[best] else best
        if end - best >= patience:
            break
    epochs = trained(3, patience)
    assert (len(epochs), epochs[-1].is_last, epochs[-1].state.best_epoch) == (end, True, best)
    assert end < 24


def test_patience_waits_for_the_end_of_an_epoch_that_is_resumed(tmp_path: Path) -> None:
    # No step changes the model, so that epoch 3, the first one ranked, stays the best.
    config = make_config(
        evaluation={"every": 3}, max_epochs=9, patience=2, learning_rate=1e-30, batch_size=64
    )
    data, steps = two_tastes(), []
    for epoch in fit(config, data, 0, n_segments=2):
        steps.append((epoch.step, epoch.is_last))
        if epoch.step == 11:
            epoch.state.save(tmp_path / "state")
    assert steps[-2:] == [(11, False), (12, True)]
    state = TrainingState.load(tmp_path / "state", config, data.n_users, data.n_items, "cpu")
    resumed = fit(config, data, 0, n_segments=2, state=state)
    assert [(epoch.step, epoch.is_last) for epoch in resumed] == [(11, False), (12, True)]


def test_a_training_resumes_from_an_epoch_that_was_not_ranked(tmp_path: Path) -> None:
    config, data = make_config(max_epochs=5, evaluation={"every": 2}), two_tastes()
    unbroken = []
    for epoch in fit(config, data, 0):
        unbroken.append(epoch)
        if epoch.epoch == 3:
            epoch.state.save(tmp_path / "state")
    state = TrainingState.load(tmp_path / "state", config, data.n_users, data.n_items, "cpu")
    resumed = list(fit(config, data, 0, state=state))
    assert [epoch.epoch for epoch in resumed] == [3, 4, 5]
    for again, expected in zip(resumed, unbroken[2:], strict=True):
        name = "val_ndcg_at_10"
        assert again.metrics.get(name) == expected.metrics.get(name)
    assert resumed[-1].state.best_epoch == unbroken[-1].state.best_epoch


def test_a_training_saved_after_its_last_epoch_yields_that_epoch_again(tmp_path: Path) -> None:
    config, data = make_config(), two_tastes()
    *_, last = fit(config, data, 0, n_epochs=2)
    last.state.save(tmp_path / "state")
    state = TrainingState.load(tmp_path / "state", config, data.n_users, data.n_items, "cpu")
    (again,) = fit(config, data, 0, n_epochs=2, state=state)
    assert (again.epoch, again.metrics, again.is_last) == (2, last.metrics, True)


def test_a_diverging_training_raises_before_its_epoch_is_yielded() -> None:
    epochs = fit(make_config(learning_rate=1e30), two_tastes(), 0)
    with pytest.raises(
        FloatingPointError,
        match=r"train_loss, epoch 1: must be finite, but got .*Lower training\.learning_rate",
    ):
        next(epochs)


def test_max_users_ranks_the_same_sample_every_time() -> None:
    def values(max_users: int | None) -> list[float]:
        config = make_config(evaluation={"max_users": max_users})
        return [
            epoch.metrics["val_ndcg_at_10"] for epoch in fit(config, two_tastes(), 0, n_epochs=2)
        ]

    assert values(20) == values(20) != values(None)
    assert values(60) == values(None)


@pytest.mark.parametrize("low", [[], [(2, 1)]], ids=["positives alone", "with a low rating"])
def test_a_loss_gets_what_it_declares(
    low: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    declared = LossEntry(
        "recsys.training.losses:softmax", takes_low_ratings=True, corrects_sampling=True
    )
    monkeypatch.setitem(LOSSES, "declared", declared)
    # Items 0, 1, 2 have weights 2 : 1 : 1. User 0 can draw item 2 alone, user 1 item 1 alone; all
    # logits are 0.
    data = make_interactions(3, 3, [(0, 0), (0, 1), (1, 0), (1, 2)], [], low=low)
    config = make_config(
        {"name": "inner_product", "init_std": 1e-6, "bias": False},
        loss="declared",
        negative_sampling="popularity",
        popularity_alpha=1.0,
        n_negatives=1,
        learning_rate=1e-12,
    )
    (epoch,) = run(config, data, n_epochs=1, rank=False)
    # Item 0 against a rarer one: (1/2) / (1/2 + 1); equals against each other: 1/2. A low rating
    # costs ln 2.
    expected = [np.log(3), np.log(2), np.log(3), np.log(2), *(np.log(2) for _ in low)]
    assert epoch.metrics["train_loss"] == pytest.approx(np.mean(expected), rel=1e-5)
