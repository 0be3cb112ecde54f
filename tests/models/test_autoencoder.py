"""Autoencoder: its arithmetic by hand and by a slow reference, and its training."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from recsys.config.schema import Config
from recsys.config.sections import ModelConfig
from recsys.data.interactions import Interactions
from recsys.models.autoencoder import Autoencoder
from recsys.models.histories import history_of
from recsys.training import full_softmax, optimiser
from recsys.training.checkpoint import TrainingState, start_training
from recsys.training.fit import fit
from recsys.training.latents import store_latents
from tests.training.small_data import make_interactions, two_tastes


def build(n_users: int = 2, n_items: int = 5, **settings: object) -> Autoencoder:
    config = ModelConfig.model_validate({"name": "autoencoder", "init_std": 1.0, **settings})
    generator = torch.Generator().manual_seed(0)
    model = Autoencoder(config, n_users, n_items, generator)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator), alpha=0.5)
    return model


def config_of(**values: dict[str, object]) -> Config:
    training = {"loss": "softmax", "negative_sampling": "all", **values.get("training", {})}
    model = {"name": "autoencoder", **values.get("model", {})}
    return Config.model_validate({"model": model, "training": training})


def test_a_history_has_unit_length() -> None:
    item, row = torch.tensor([4, 1, 0]), torch.tensor([0, 0, 2])
    history = history_of(item, row, 3, torch.tensor([3.0, 4.0, 7.0]))
    assert history.start.tolist() == [0, 2, 2]
    assert history.weight.tolist() == pytest.approx([0.6, 0.8, 1.0])
    equal = history_of(item, row, 3, None).weight.tolist()
    assert equal == pytest.approx([0.5**0.5, 0.5**0.5, 1.0])


def test_without_layers_it_is_a_product_of_sums_by_hand() -> None:
    model = build(n_layers=0, embedding_dim=1)
    with torch.no_grad():
        model.inputs.weight.copy_(torch.tensor([[1.0], [2.0], [4.0], [0.0], [0.0]]))
        model.outputs.weight.copy_(torch.tensor([[10.0], [20.0], [30.0], [40.0], [50.0]]))
        model.first_bias.fill_(0.5)
        model.biases.item.copy_(torch.arange(5.0))
    history = history_of(torch.tensor([0, 2]), torch.tensor([0, 0]), 2, None)
    latents = model.encode(history)
    assert latents.tolist() == [[pytest.approx(5 / 2**0.5 + 0.5)], [0.5]]
    scores = model.score(model.side_of(latents), model.item_side(None))
    assert scores[1].tolist() == [5 + 0, 10 + 1, 15 + 2, 20 + 3, 25 + 4]


@pytest.mark.parametrize("similarity", ["dot", "cosine"])
@pytest.mark.parametrize("n_layers", [0, 1, 2])
def test_it_equals_a_slow_reference(n_layers: int, similarity: str) -> None:
    model = build(n_layers=n_layers, embedding_dim=3, hidden_dim=4, similarity=similarity)
    state = {name: values.numpy() for name, values in model.state_dict().items()}
    rows = np.zeros((2, 5))  # users by items
    rows[0, [1, 3, 4]] = 1 / 3**0.5
    rows[1, 2] = 1.0
    hidden = rows @ state["inputs.weight"] + state["first_bias"]
    for side in ("encoder", "decoder"):
        for layer in range(n_layers):
            weight, bias = state[f"{side}.weights.{layer}"], state[f"{side}.biases.{layer}"]
            hidden = np.tanh(hidden) @ weight.T + bias
    decoded, outputs = np.tanh(hidden) if n_layers else hidden, state["outputs.weight"]
    if similarity == "cosine":
        decoded /= np.linalg.norm(decoded, axis=1, keepdims=True)
        outputs = outputs / np.linalg.norm(outputs, axis=1, keepdims=True)
    expected = decoded @ outputs.T + state["intercepts.item"]
    data = make_interactions(2, 5, [(0, 1), (0, 3), (0, 4), (1, 2)], [])
    store_latents(model, config_of().training, data)
    found = model(torch.arange(2), torch.arange(5))
    assert found.detach().numpy() == pytest.approx(expected, abs=1e-5)


def test_the_first_loss_by_hand() -> None:
    # User 0 has item 0, and sees logits 1, 2 and 3 from its input of 1 and a width of 1.
    data = make_interactions(1, 3, [(0, 0)], [])
    config = config_of(
        model={"n_layers": 0, "embedding_dim": 1, "bias": False},
        training={"n_negatives": 4, "l2": 10.0},
    )
    state = start_training(config, 1, 3, 0, "cpu")
    with torch.no_grad():
        state.model.get_parameter("inputs.weight").fill_(1.0)
        state.model.get_parameter("first_bias").zero_()
        outputs = state.model.get_parameter("outputs.weight")
        outputs.copy_(torch.tensor([[1.0], [2.0], [3.0]]))
    (epoch,) = fit(config, data, 0, n_epochs=1, state=state, rank=False)
    loss = math.log1p(4 * (math.exp(2) + math.exp(3)) / 2 / math.exp(1))
    assert epoch.metrics["train_loss"] == pytest.approx(loss + 10 * (1 + 1), rel=1e-5)


@pytest.mark.parametrize("n_layers", [0, 1])
def test_the_first_gradients_of_a_cosine_are_of_ordinary_size(n_layers: int) -> None:
    # A direction of length 0 has gradients of 1e12, from which Adam's moments would not recover.
    config = config_of(
        model={"n_layers": n_layers, "similarity": "cosine"}, training={"max_epochs": 1}
    )
    *_, last = fit(config, two_tastes(), 0, rank=False)
    for moments in last.state.adam.moments.values():
        assert moments["exp_avg_sq"].max() < 1e6


def latents_of(model: Autoencoder, data: Interactions, **training: object) -> Tensor:
    store_latents(model, config_of(training=training).training, data)
    return model.latents.clone()


def test_weights_by_recency_change_the_latents_and_not_the_training() -> None:
    data = two_tastes()
    n_later = np.tile(np.arange(7, -1, -1), 60).astype(np.int32)
    data = dataclasses.replace(data, n_later=n_later)
    models = []
    for half_life in (None, 1.0):
        config = config_of(
            model={"n_layers": 0, "embedding_dim": 4, "dropout": 0.5},
            training={"max_epochs": 3, "learning_rate": 0.02, "recency_half_life": half_life},
        )
        *_, last = fit(config, data, 0, rank=False)
        models.append(last.state.model)
    for weight, expected in zip(models[1].parameters(), models[0].parameters(), strict=True):
        assert torch.equal(weight, expected)
    assert not torch.allclose(models[1].get_buffer("latents"), models[0].get_buffer("latents"))


def test_dropout_drops_positives_in_training_alone() -> None:
    model, data = build(60, 40, dropout=0.5), two_tastes()
    assert torch.equal(latents_of(model, data), latents_of(model, data))
    history = history_of(torch.arange(40), torch.zeros(40, dtype=torch.int64), 1, None)
    model.train()
    assert not torch.equal(model.encode(history), model.encode(history))


def test_a_user_depends_on_its_own_positives_and_their_weights_alone() -> None:
    model = build(3, 8)
    pairs = [(0, 1), (0, 2), (1, 4), (1, 5), (2, 7)]
    before = latents_of(model, make_interactions(3, 8, pairs, []))
    after = latents_of(model, make_interactions(3, 8, [*pairs[:3], (1, 6), (2, 0)], []))
    torch.testing.assert_close(after[0], before[0])
    assert not torch.allclose(after[1:], before[1:])
    n_later = np.array([1, 0, 0, 1, 0], dtype=np.int32)
    data = dataclasses.replace(make_interactions(3, 8, pairs, []), n_later=n_later)
    recent = latents_of(model, data, recency_half_life=1.0)
    # User 1's first positive counts twice as much as its second, that of user 2 as before.
    history = history_of(torch.tensor([4, 5]), torch.tensor([0, 0]), 1, torch.tensor([2.0, 1.0]))
    torch.testing.assert_close(recent[1], model.encode(history)[0])
    torch.testing.assert_close(recent[2], before[2])


def test_a_gaussian_latent_is_drawn_in_training_and_its_mean_elsewhere() -> None:
    model = build(1, n_layers=0, embedding_dim=1, bottleneck="gaussian")
    with torch.no_grad():
        model.inputs.weight.zero_()
        model.first_bias.copy_(torch.tensor([1.0, math.log(4.0)]))  # mean 1, variance 4
        model.outputs.weight.fill_(1.0)
    history = history_of(torch.arange(5), torch.zeros(5, dtype=torch.int64), 1, None)
    assert model.encode(history).tolist() == [[1.0]]
    torch.manual_seed(0)
    draws = []
    for _ in range(2000):
        side, divergence, _ = model.train_side(history, None)
        assert divergence is not None
        assert divergence.item() == pytest.approx((1 + 4 - math.log(4) - 1) / 2)
        assert isinstance(side.factors[0], Tensor)
        draws.append(side.factors[0].item())
    assert np.mean(draws) == pytest.approx(1, abs=0.15)
    assert np.std(draws) == pytest.approx(2, abs=0.15)


def test_the_divergence_is_weighed_more_from_epoch_to_epoch() -> None:
    # The model has no step size: each epoch has the same loss but for the weight of divergence.
    data = make_interactions(2, 3, [(0, 0), (0, 1), (1, 0)], [])
    config = config_of(
        model={"n_layers": 0, "embedding_dim": 1, "bottleneck": "gaussian", "bias": False},
        training={"learning_rate": 1e-12, "kl_weight": 0.6, "max_epochs": 6},
    )
    state = start_training(config, 2, 3, 0, "cpu")
    with torch.no_grad():
        state.model.get_parameter("first_bias").copy_(torch.tensor([3.0, 0.0]))  # mean 3
        state.model.get_parameter("outputs.weight").zero_()
    losses = [
        epoch.metrics["train_loss"] for epoch in fit(config, data, 0, state=state, rank=False)
    ]
    # Two users of divergence 9 / 2, three positives.
    added = [loss - losses[0] for loss in losses]
    assert added == pytest.approx(
        [share * 0.6 * 2 * 4.5 / 3 for share in (0, 1 / 3, 2 / 3, 1, 1, 1)], rel=1e-4, abs=1e-6
    )


@pytest.mark.parametrize(
    ("bottleneck", "max_items"), [("none", 1 << 13), ("none", 25), ("gaussian", 25)]
)
def test_it_learns_and_resumes_bit_for_bit(
    bottleneck: str, max_items: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(full_softmax, "MAX_ITEMS", max_items)
    monkeypatch.setattr(optimiser, "MIN_VALUES", -math.inf)
    model = {"n_layers": 1, "embedding_dim": 4, "hidden_dim": 8, "dropout": 0.5}
    config = config_of(
        model={**model, "bottleneck": bottleneck},
        training={"batch_size": 100, "learning_rate": 0.02, "max_epochs": 30},
    )
    data = two_tastes()
    unbroken = []
    for epoch in fit(config, data, 3):
        unbroken.append(epoch.metrics)
        if epoch.epoch == 15:
            epoch.state.save(tmp_path / "state")
    # By chance a third of the users would hit, of the right taste all but two.
    assert max(metrics["val_hit_rate_at_10"] for metrics in unbroken) > 0.7
    state = TrainingState.load(tmp_path / "state", config, data.n_users, data.n_items, "cpu")
    resumed = [epoch.metrics for epoch in fit(config, data, 3, state=state)]
    for key in ("train_loss", "val_ndcg_at_10"):
        assert [metrics[key] for metrics in resumed] == [metrics[key] for metrics in unbroken[14:]]


def test_an_item_that_training_never_saw_says_nothing() -> None:
    data = make_interactions(3, 6, [(0, 1), (1, 2), (2, 1), (2, 2)], [])
    config = config_of(training={"max_epochs": 3, "learning_rate": 0.1})
    *_, last = fit(config, data, 0, rank=False)
    inputs = last.state.model.get_parameter("inputs.weight")
    assert inputs.any(1).tolist() == [False, True, True, False, False, False]
