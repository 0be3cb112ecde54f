import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recsys.config.schema import Config
from recsys.data.interactions import Interactions
from recsys.training import least_squares, row_solver
from recsys.training.checkpoint import TrainingState, start_training
from recsys.training.fit import fit
from recsys.training.least_squares import LeastSquares
from tests.training.small_data import make_interactions, two_tastes


def _set_max_values(monkeypatch: pytest.MonkeyPatch, n_values: int) -> None:
    for module in (least_squares, row_solver):
        monkeypatch.setattr(module, "MAX_VALUES", n_values)


def make_config(**training: Any) -> Config:
    model = {"name": "inner_product", "embedding_dim": 4}
    settings = {"loss": "squared", "n_negatives": 3, "l2": 0.1, "max_epochs": 8, **training}
    return Config.model_validate({"model": model, "training": settings})


def objective(
    config: Config, data: Interactions, users: torch.Tensor, items: torch.Tensor
) -> torch.Tensor:
    """The loss of the module's text, pair by pair."""
    n_negatives, n_positives = config.training.n_negatives, len(data.user)
    weight = n_negatives * n_positives / (data.n_users * data.n_items)
    l2 = config.training.l2 / (1 + n_negatives)
    weights, positive = (
        torch.full((data.n_users, data.n_items), weight),
        torch.zeros(data.n_users, data.n_items),
    )
    weights[data.low_user, data.low_item] = 0
    positive[data.user, data.item] = 1
    scores = users @ items.T
    loss = (positive * (1 - scores).square() + weights * scores.square()).sum()
    for rows, counts, others in (
        (users, positive.sum(1), data.n_items),
        (items, positive.sum(0), data.n_users),
    ):
        loss = loss + l2 * ((counts + weight * others) * rows.square().sum(1)).sum()
    return loss


def test_one_user_and_one_item_by_hand() -> None:
    # d = 1, one pair, 1 negative: a = 1, b = l2 / 2 = 0.05.
    # With item i: u (i^2 + i^2 + 0.05 * 2) = i.
    config = Config.model_validate(
        {
            "model": {"name": "inner_product", "embedding_dim": 1},
            "training": {"loss": "squared", "n_negatives": 1, "l2": 0.1, "max_epochs": 1},
        }
    )
    data = make_interactions(1, 1, [(0, 0)], [])
    state = start_training(config, 1, 1, 0, "cpu")
    state.model.get_parameter("items.weight").data.fill_(0.5)
    (epoch,) = fit(config, data, 0, state=state, rank=False)
    user = 0.5 / (0.25 + 0.25 + 0.1)
    item = user / (2 * user**2 + 0.1)
    user = item / (2 * item**2 + 0.1)  # and the user again, for the item as it is ranked
    assert epoch.state.model.get_parameter("users.weight").item() == pytest.approx(user, rel=1e-5)
    assert epoch.state.model.get_parameter("items.weight").item() == pytest.approx(item, rel=1e-5)
    loss = (1 - user * item) ** 2 + (user * item) ** 2 + 0.05 * 2 * (user**2 + item**2)
    assert epoch.metrics["train_loss"] == pytest.approx(loss, rel=1e-5)


def test_one_column_after_the_other_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    # d = 2, one pair, 1 negative, item (0.5, 1): each column of the user is solved given the last
    # value of the other.
    monkeypatch.setattr(least_squares, "COLUMNS", 1)
    monkeypatch.setattr(row_solver, "SHORT_SHARE", 0)
    config = Config.model_validate(
        {
            "model": {"name": "inner_product", "embedding_dim": 2},
            "training": {"loss": "squared", "n_negatives": 1, "l2": 0.1, "max_epochs": 1},
        }
    )
    state = start_training(config, 1, 1, 0, "cpu")
    items, users = (state.model.get_parameter(f"{side}.weight").data for side in ("items", "users"))
    items.copy_(torch.tensor([[0.5, 1.0]]))
    users.copy_(torch.tensor([[0.2, 0.4]]))
    trainer = LeastSquares(
        config, make_interactions(1, 1, [(0, 0)], []), state, "cpu", n_segments=1
    )
    monkeypatch.setattr(trainer, "_of_items", [])
    monkeypatch.setattr(trainer, "_of_users", trainer._of_users[:1])
    trainer.train(2, 1)
    # (1 - s)^2 + s^2 + 0.1 ||u||^2 with s = u1 / 2 + u2 is minimal in u1 where
    # u1 (2 * 0.25 + 0.1) = 0.5 - 2 * 0.5 * u2.
    first = (0.5 - 2 * 0.5 * 0.4) / (2 * 0.25 + 0.1)
    second = (1 - 2 * 0.5 * first) / (2 + 0.1)
    assert users.tolist()[0] == pytest.approx([first, second], rel=1e-5)


@pytest.mark.parametrize(
    # Some of the items have at most 5 interactions, low ratings among them; no user has.
    ("columns", "short_share"),
    [(1, 0.0), (3, 0.0), (1, 1.25)],
)
def test_columns_solved_in_turn_reach_the_minimum_of_all(
    columns: int, short_share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(least_squares, "COLUMNS", columns)
    monkeypatch.setattr(row_solver, "SHORT_SHARE", short_share)
    _set_max_values(monkeypatch, 600)  # some of a user's items after the others, too
    data = two_tastes(n_users=20)
    config = make_config(max_epochs=200)
    *_, last = fit(config, data, 0, rank=False)
    sides = [
        last.state.model.get_parameter(f"{side}.weight").detach().requires_grad_()
        for side in ("users", "items")
    ]
    for gradient in torch.autograd.grad(objective(config, data, *sides), sides):
        assert gradient.abs().max() < 1e-3


@pytest.mark.parametrize("short_share", [0, 100])
@pytest.mark.parametrize("max_values", [1 << 21, 60])
def test_each_side_is_at_the_minimum_given_the_other(
    max_values: int, short_share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    _set_max_values(monkeypatch, max_values)
    monkeypatch.setattr(row_solver, "SHORT_SHARE", short_share)
    config, data = make_config(), two_tastes()
    *_, last = fit(config, data, 0)
    users, items = (
        last.state.model.get_parameter(f"{side}.weight").detach() for side in ("users", "items")
    )
    users.requires_grad_()
    (gradient,) = torch.autograd.grad(objective(config, data, users, items), users)
    assert gradient.abs().max() < 1e-4  # the users were solved last
    items.requires_grad_()
    (before,) = torch.autograd.grad(objective(config, data, users.detach(), items), items)
    assert before.abs().max() > 1e-4  # and the items before them


def test_the_loss_falls_and_the_held_out_items_are_found() -> None:
    data = two_tastes()
    epochs = list(fit(make_config(max_epochs=15), data, 0))
    losses = [epoch.metrics["train_loss"] for epoch in epochs]
    assert all(later <= earlier * (1 + 1e-5) for earlier, later in itertools.pairwise(losses))
    assert max(epoch.metrics["val_hit_rate_at_10"] for epoch in epochs) > 0.7


@pytest.mark.parametrize("short_share", [0, 100])
def test_users_and_items_without_a_positive_get_zeros(
    short_share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_solver, "SHORT_SHARE", short_share)
    data = make_interactions(3, 4, [(0, 0), (0, 1), (1, 1)], [], low=[(2, 3)])
    *_, last = fit(make_config(), data, 0, rank=False)
    assert last.state.model.get_parameter("users.weight")[2].tolist() == [0] * 4
    assert last.state.model.get_parameter("items.weight")[2].tolist() == [0] * 4
    assert last.state.model.get_parameter("items.weight")[1].abs().sum() > 0


@pytest.mark.parametrize("short_share", [0, 100])
def test_a_singular_system_raises_and_is_not_scored(
    short_share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_solver, "SHORT_SHARE", short_share)
    data = make_interactions(2, 3, [(0, 0), (1, 1)], [(0, 1)])
    with pytest.raises(
        FloatingPointError, match=r"loss squared: must have a single solution, but got none\. Raise"
    ):
        list(fit(make_config(l2=0.0), data, 0))


@pytest.mark.parametrize("short_share", [0, 100])
def test_it_resumes_bit_for_bit_and_in_segments(
    short_share: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_solver, "SHORT_SHARE", short_share)
    config, data = make_config(max_epochs=3), two_tastes()
    whole = [epoch.metrics for epoch in fit(config, data, 0)]
    _set_max_values(monkeypatch, 400)
    monkeypatch.setattr("recsys.training.segments.SEGMENT", 160)  # of 480 positives
    unbroken = []
    for epoch in fit(config, data, 0):
        unbroken.append(epoch.metrics)
        epoch.state.save(tmp_path / str(epoch.step))
    assert len(unbroken) == 9
    assert [unbroken[n]["train_loss"] for n in (2, 5, 8)] != [
        metrics["train_loss"] for metrics in whole
    ]
    assert unbroken[8]["val_ndcg_at_10"] == pytest.approx(whole[2]["val_ndcg_at_10"], abs=1e-6)
    for step in (2, 3, 4):
        state = TrainingState.load(tmp_path / str(step), config, data.n_users, data.n_items, "cpu")
        resumed = [epoch.metrics for epoch in fit(config, data, 0, state=state)]
        for name in ("train_loss", "val_ndcg_at_10"):
            assert [metrics[name] for metrics in resumed] == [
                metrics[name] for metrics in unbroken[step - 1 :]
            ]


def test_the_seed_decides_where_it_starts() -> None:
    def items(seed: int) -> np.ndarray:
        (epoch,) = fit(make_config(max_epochs=1), two_tastes(), seed, rank=False)
        return epoch.state.model.get_parameter("items.weight").detach().numpy()

    assert np.array_equal(items(1), items(1))
    assert not np.allclose(items(1), items(2))
