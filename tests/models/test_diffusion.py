"""Diffusion: its schedule by the closed form, its arithmetic by a slow reference, its training."""

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from recsys.config.schema import Config
from recsys.models import diffusion
from recsys.models.diffusion import N_LOSSES, Diffusion, Schedule
from recsys.models.histories import history_of
from recsys.training import full_softmax, optimiser
from recsys.training.checkpoint import TrainingState, start_training
from recsys.training.fit import fit
from recsys.training.latents import store_latents
from tests.training.small_data import make_interactions, two_tastes


def config_of(name: str = "diffusion", **values: dict[str, Any]) -> Config:
    training = {"loss": "softmax", "negative_sampling": "all", **values.get("training", {})}
    model = {"name": name, **values.get("model", {})}
    return Config.model_validate({"model": model, "training": training})


def build(n_users: int, n_items: int, **settings: object) -> Diffusion:
    model = start_training(config_of(model=settings), n_users, n_items, 0, "cpu").model
    assert isinstance(model, Diffusion)
    with torch.no_grad():
        for seed, weight in enumerate(model.parameters()):
            weight.normal_(generator=torch.Generator().manual_seed(seed))
    return model


@pytest.mark.parametrize("scale", [1.0, 0.3, 1e-4])
def test_the_schedule_is_that_of_the_closed_form(scale: float) -> None:
    # Of Ho et al. 2020, from the variances alone: alpha, beta, and the mean of x_(t-1).
    n_steps = 4
    variances = [scale * (1e-4 + (0.02 - 1e-4) * step / 3) for step in range(n_steps)]
    assert Schedule(n_steps, scale).variances == pytest.approx(variances)
    kept = [1.0, *(1 - variance for variance in variances)]  # from x_0 to x_t
    assert all(more > less for more, less in itertools.pairwise(kept))
    ratios = [signal / (1 - signal) for signal in kept[1:]]
    raw = [1.0, *(before - after for before, after in itertools.pairwise(ratios))]
    weights = Schedule(n_steps, scale).loss_weights
    assert weights == pytest.approx([n_steps * weight / sum(raw) for weight in raw], rel=1e-6)
    for step in range(1, n_steps + 1):
        alpha = kept[step] / kept[step - 1]
        of_start = kept[step - 1] ** 0.5 * (1 - alpha) / (1 - kept[step])
        of_row = alpha**0.5 * (1 - kept[step - 1]) / (1 - kept[step])
        assert Schedule(n_steps, scale).posterior(step) == pytest.approx(
            (of_start, of_row), rel=1e-6, abs=1e-12
        )


def test_a_schedule_without_noise() -> None:
    schedule = Schedule(3, 0.0)
    assert schedule.variances == [0.0] * 3
    assert schedule.loss_weights == [1.0] * 3
    # The limits of small scales: the share of the variance that step t adds, and that it finds.
    variances = [1e-4, 0.01005, 0.02]
    assert schedule.posterior(1) == (1.0, 0.0)
    assert schedule.posterior(3) == pytest.approx(
        ((variances[2] - variances[1]) / variances[2], variances[1] / variances[2])
    )
    assert Schedule(1, 0.5).variances == [0.5e-4]


@pytest.mark.parametrize("n_layers", [0, 1])
@pytest.mark.parametrize("max_values", [1 << 24, 6], ids=["at once", "user by user"])
def test_the_latents_equal_a_slow_reference(
    n_layers: int, max_values: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diffusion, "MAX_VALUES", max_values)
    settings = {"n_layers": n_layers, "embedding_dim": 3, "hidden_dim": 4}
    model = build(3, 6, **settings, noise_steps=3, noise_scale=0.5)
    state = {name: values.numpy() for name, values in model.state_dict().items()}
    dense = [
        [
            (state[f"network.{side}.weights.{layer}"], state[f"network.{side}.biases.{layer}"])
            for layer in range(n_layers)
        ]
        for side in ("encoder", "decoder")
    ]

    def latent_of(row: Any, n: float, step: int) -> Any:
        hidden = row / n**0.5 @ state["network.inputs.weight"]
        hidden = hidden + (step - 1) / 2 * state["step_vector"] + state["network.first_bias"]
        for weight, bias in dense[0]:
            hidden = np.tanh(hidden) @ weight.T + bias
        return hidden

    def logits_of(latent: Any) -> Any:
        for weight, bias in dense[1]:
            latent = np.tanh(latent) @ weight.T + bias
        decoded = np.tanh(latent) if n_layers else latent
        return decoded @ state["network.outputs.weight"].T + state["network.intercepts.item"]

    pairs = [(0, 1), (0, 3), (0, 4), (1, 2)]
    data = make_interactions(3, 6, pairs, [])
    store_latents(model, config_of().training, data)
    scores = model(torch.arange(3), torch.arange(6)).detach().numpy()
    for user in (0, 1):
        row_0 = np.zeros(6)
        row_0[[item for other, item in pairs if other == user]] = 1.0
        row, n = row_0, row_0.sum()
        for step in (3, 2):
            odds = np.exp(logits_of(latent_of(row, n, step)))
            of_start, of_row = model.schedule.posterior(step)
            row = of_start * n * odds / odds.sum() + of_row * row
        expected = latent_of(row, n, 1)
        assert model.latents[user].numpy() == pytest.approx(expected, abs=1e-4)
        assert scores[user] == pytest.approx(logits_of(expected), abs=1e-4)
    # A user without positives has the latent of no row.
    assert model.latents[2].isfinite().all()


def test_a_user_depends_on_its_own_positives_alone() -> None:
    model = build(2, 6, noise_steps=3)
    latents = []
    for others in ([(1, 2)], [(1, 3), (1, 5)]):
        store_latents(
            model, config_of().training, make_interactions(2, 6, [(0, 1), (0, 4), *others], [])
        )
        latents.append(model.latents.clone())
    torch.testing.assert_close(latents[0][0], latents[1][0])
    assert not torch.allclose(latents[0][1], latents[1][1])


def test_the_noise_of_a_step() -> None:
    # Two positives, whose input rows are 1 and 0: the first layer has the mean sqrt((1 - v) / 2).
    # Noise on all four items adds the variance v (1 + 4 + 4) / 2.
    model = build(1, 4, n_layers=0, embedding_dim=1, noise_steps=2, noise_scale=1.0)
    with torch.no_grad():
        model.network.inputs.weight.copy_(torch.tensor([[1.0], [0.0], [2.0], [2.0]]))
        model.network.first_bias.zero_()
        model.step_vector.fill_(100.0)
    n_users = 20_000
    item, row = torch.tensor([0, 1]).repeat(n_users), torch.arange(n_users).repeat_interleave(2)
    torch.manual_seed(0)
    side, penalty, _ = model.train_side(history_of(item, row, n_users, None), None)
    assert penalty is None
    (decoded,) = side.factors
    assert isinstance(decoded, Tensor)
    values = decoded.detach().numpy()[:, 0]
    first, second = values[values < 50], values[values >= 50] - 100
    assert len(first) == pytest.approx(n_users / 2, rel=0.05)
    for found, variance in ((first, 1e-4), (second, 0.02)):
        assert found.mean() == pytest.approx(((1 - variance) / 2) ** 0.5, abs=0.01)
        assert found.std() == pytest.approx((variance * 9 / 2) ** 0.5, rel=0.05)


def test_steps_with_large_losses_are_drawn_more_and_count_less() -> None:
    model = build(1, 3, noise_steps=2, noise_scale=0.0)
    history = history_of(torch.tensor([0]), torch.tensor([0]), 1, None)
    assert model.chances().tolist() == [0.5, 0.5]
    for _ in range(N_LOSSES):
        weigh = model.train_side(history, None).weigh
        assert weigh is not None
        assert weigh(torch.tensor([3.0])).tolist() == [1.0]
    assert model.chances().tolist() == [0.5, 0.5]  # one step, at least, had fewer losses
    model.losses.copy_(torch.tensor([[1.0] * 10, [3.0] * 9 + [13.0]]))
    root = ((9 * 9 + 169) / 10) ** 0.5  # 5
    expected = [0.999 / (1 + root) + 0.0005, 0.999 * root / (1 + root) + 0.0005]
    assert model.chances().tolist() == pytest.approx(expected)
    # Both steps in one batch: their losses are the latest, that of the second a mean.
    weights = model._weigh(torch.tensor([0, 1, 1]), model.chances(), torch.tensor([4.0, 2.0, 6.0]))
    chances = torch.tensor([expected[0], expected[1], expected[1]])
    torch.testing.assert_close(weights, 1 / (2 * chances))
    assert model.losses.tolist() == [[1.0] * 9 + [4.0], [3.0] * 8 + [13.0, 4.0]]
    model.losses[0, 0] = math.nan
    assert model.chances().tolist() == [0.5, 0.5]


def test_the_weights_multiply_the_losses_of_their_users(monkeypatch: pytest.MonkeyPatch) -> None:
    data = make_interactions(2, 3, [(0, 0), (1, 1), (1, 2)], [])
    config = config_of(
        model={"n_layers": 0, "embedding_dim": 1, "bias": False, "noise_scale": 0.0},
        training={"n_negatives": 1},
    )
    seen: list[list[float]] = []

    def weigh(self: Diffusion, step: Tensor, chances: Tensor, losses: Tensor) -> Tensor:
        seen.append(losses.tolist())
        return 10 * losses

    monkeypatch.setattr(Diffusion, "_weigh", weigh)
    (epoch,) = fit(config, data, 0, n_epochs=1, rank=False)
    # All logits are about 0: one negative against the positive.
    assert seen == [pytest.approx([math.log(2)] * 2, rel=1e-3)]
    assert epoch.metrics["train_loss"] == pytest.approx(10 * math.log(2) ** 2, rel=1e-3)


def test_the_first_loss_by_hand() -> None:
    # User 0 has item 0; both users have the same logits 1, 2 and 3, but three positives in all.
    data = make_interactions(2, 3, [(0, 0), (1, 1), (1, 2)], [])
    config = config_of(
        model={"n_layers": 0, "embedding_dim": 1, "bias": False, "noise_scale": 0.0},
        training={"n_negatives": 4},
    )
    state = start_training(config, 2, 3, 0, "cpu")
    with torch.no_grad():
        state.model.get_parameter("network.first_bias").fill_(1.0)
        outputs = state.model.get_parameter("network.outputs.weight")
        outputs.copy_(torch.tensor([[1.0], [2.0], [3.0]]))
    (epoch,) = fit(config, data, 0, n_epochs=1, state=state, rank=False)
    losses = [
        math.log1p(4 * (math.exp(2) + math.exp(3)) / 2 / math.exp(1)),
        math.log1p(4 * math.exp(1) / math.exp(2)),
        math.log1p(4 * math.exp(1) / math.exp(3)),
    ]
    assert epoch.metrics["train_loss"] == pytest.approx(sum(losses) / 3, rel=1e-5)
    noted = state.model.get_buffer("losses")[:, -1]
    means = [losses[0], (losses[1] + losses[2]) / 2]
    found = sorted(noted[noted.isfinite()].tolist())
    assert found == pytest.approx(sorted(means)) or found == pytest.approx([sum(means) / 2])


@pytest.mark.parametrize("n_layers", [0, 1])
def test_one_step_without_noise_is_the_autoencoder_to_the_last_bit(n_layers: int) -> None:
    model = {"n_layers": n_layers, "embedding_dim": 4, "hidden_dim": 8, "dropout": 0.5}
    states = []
    for name in ("autoencoder", "diffusion"):
        config = config_of(
            name,
            model={**model, "noise_steps": 1, "noise_scale": 0.0},
            training={"max_epochs": 4, "learning_rate": 0.02, "batch_size": 100, "l2": 0.01},
        )
        *_, last = fit(config, two_tastes(), 0, rank=False)
        states.append(last.state.model.state_dict())
    plain, found = states
    assert torch.equal(found.pop("latents"), plain.pop("latents"))
    for weight_name, weight in plain.items():
        assert torch.equal(found[f"network.{weight_name}"], weight), weight_name


@pytest.mark.parametrize("max_items", [1 << 13, 25])
def test_it_learns_and_resumes_bit_for_bit(
    max_items: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(full_softmax, "MAX_ITEMS", max_items)
    monkeypatch.setattr(optimiser, "MIN_VALUES", -math.inf)
    model = {"n_layers": 0, "embedding_dim": 8, "dropout": 0.5}
    config = config_of(
        model={**model, "noise_steps": 3, "noise_scale": 0.5},
        training={"batch_size": 100, "learning_rate": 0.02, "max_epochs": 30},
    )
    data = two_tastes()
    unbroken = []
    for epoch in fit(config, data, 3):
        unbroken.append(epoch.metrics)
        if epoch.epoch == 15:
            assert epoch.state.model.get_buffer("losses").isfinite().all()
            epoch.state.save(tmp_path / "state")
    assert max(metrics["val_hit_rate_at_10"] for metrics in unbroken) > 0.7
    state = TrainingState.load(tmp_path / "state", config, data.n_users, data.n_items, "cpu")
    resumed = [epoch.metrics for epoch in fit(config, data, 3, state=state)]
    for key in ("train_loss", "val_ndcg_at_10"):
        assert [metrics[key] for metrics in resumed] == [metrics[key] for metrics in unbroken[14:]]
