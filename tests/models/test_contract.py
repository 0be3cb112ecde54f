"""Contract of a model: tests that run over every entry of `MODELS`, a newly added one included."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from recsys.config.components import MODELS, ModelEntry
from recsys.config.schema import Config
from recsys.config.sections import ModelConfig, TrainingConfig
from recsys.data.interactions import HeldOut
from recsys.data.negatives import index_pairs
from recsys.evaluation.ranking import rank_all
from recsys.evaluation.scorers import ModelScorer
from recsys.kernels import lookup
from recsys.kernels.adam import Adam
from recsys.models import Model, Side, SideName, build_model
from recsys.models.histories import HistoryModel, history_of
from recsys.models.inner_product import InnerProduct
from recsys.training import optimiser
from recsys.training.checkpoint import TrainingState
from recsys.training.optimiser import Optimiser
from recsys.training.row_batch import RowBatch
from recsys.training.user_batch import UserBatch

N_USERS, N_ITEMS = 9, 13
USER = torch.tensor([3, 0, 3, 8])
ITEM = torch.tensor([[0, 10, 4], [1, 1, 2], [9, 8, 12], [10, 0, 5]])
LOW_USER, LOW_ITEM = torch.tensor([1, 3]), torch.tensor([0, 11])
SETTINGS: list[dict[str, object]] = [
    {"bias": True},
    {"bias": False},
    {"n_layers": 1, "embedding_dim": 1},
    {"similarity": "cosine"},
]
CASES = [
    (name, settings)
    for name, settings in itertools.product(MODELS, SETTINGS)
    if MODELS[name].takes_cosine or "similarity" not in settings
]

cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")
every_case = pytest.mark.parametrize(("name", "settings"), CASES, ids=str)
devices = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=cuda)])


def config_of(name: str, settings: dict[str, object]) -> ModelConfig:
    values = {"name": name, "init_std": 0.5, "embedding_dim": 6, "hidden_dim": 8, **settings}
    return ModelConfig.model_validate(values)


def build(name: str, settings: dict[str, object], device: str = "cpu") -> Model:
    generator = torch.Generator().manual_seed(0)
    model = build_model(config_of(name, settings), N_USERS, N_ITEMS, generator)
    if isinstance(model, HistoryModel):
        for values in (model.latents, model.input_rows().weight.data):  # 0 at first
            values.normal_(generator=generator)
    return model.to(device)


def user_side(model: Model, user: Tensor) -> Side:
    """Side of users as training has it: from two positives of each, if the model reads them."""
    if not isinstance(model, HistoryModel):
        return model.user_side(user)
    row = torch.arange(len(user), device=user.device).repeat_interleave(2)
    item = torch.stack([user, user + 3], 1).view(-1)
    weight = model.latents.new_ones(len(item))
    return model.side_of(model.encode(history_of(item, row, len(user), weight)))


def training_of(name: str) -> TrainingConfig:
    if MODELS[name].reads_histories:
        return TrainingConfig(loss="softmax", negative_sampling="all")
    return TrainingConfig()


def batches(name: str, n: int, device: str) -> list[RowBatch | UserBatch]:
    """Batches of a few rows with repeated ids; most lack some users and items."""
    ids = (USER, N_USERS), (ITEM, N_ITEMS), (LOW_USER, N_USERS), (LOW_ITEM, N_ITEMS)
    found: list[RowBatch | UserBatch] = []
    for k in range(n):
        user, item, low_user, low_item = (((some + k * k) % size).to(device) for some, size in ids)
        if MODELS[name].reads_histories:
            found.append(user_batch(user, item))
        else:
            found.append(RowBatch(user, item, low_user, low_item, log_weights=None))
    return found


def user_batch(user: Tensor, item: Tensor) -> UserBatch:
    """Batch of the users, each with the first of its items as a positive."""
    items, column = torch.unique(item, return_inverse=True)
    row = torch.arange(len(user), device=user.device)
    positive = column[:, 0]
    return UserBatch(
        user,
        items,
        row,
        positive,
        weight=None,
        excluded=row * len(items) + positive,
        shift=torch.zeros(len(user), device=user.device),
        n_drawn=len(items),
        top=1,
    )


@every_case
@devices
def test_logits_have_the_shape_of_the_items(
    name: str, settings: dict[str, object], device: str
) -> None:
    model, user, item = build(name, settings, device), USER.to(device), ITEM.to(device)
    assert model(user, item).shape == (4, 3)
    every = model(user, torch.arange(N_ITEMS, device=device))
    assert every.shape == (4, N_ITEMS)
    torch.testing.assert_close(model.score(model.user_side(user), model.item_side(None)), every)
    torch.testing.assert_close(model(user, item), every.gather(1, item))
    assert model.user_side(user).embeddings[0].shape[0] == 4  # type: ignore[union-attr]


@every_case
@devices
@pytest.mark.parametrize("copied", [True, False], ids=["rows copied", "rows in place"])
def test_gradients_are_those_of_the_logits(
    name: str,
    settings: dict[str, object],
    device: str,
    copied: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Against differences of the logits themselves, which do not depend on any backward pass.
    monkeypatch.setattr(lookup, "MIN_VALUES", 1 << 30 if copied else 0)
    model = build(name, settings).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            noise = torch.randn(weight.shape, dtype=torch.float64, generator=generator)
            weight.add_(noise, alpha=0.1)
    model, user, item = model.to(device), USER.to(device), ITEM.to(device)
    weights = torch.linspace(-1, 2, 12, dtype=torch.float64, device=device).view(4, 3)

    def value() -> Tensor:
        logits = model.score(user_side(model, user), model.item_side(item))
        return (logits * weights).sum()

    torch.autograd.backward(value())
    step = 1e-6
    for weight in model.parameters():
        assert weight.grad is not None
        flat, gradient = weight.data.view(-1), weight.grad.reshape(-1)
        for index in range(0, len(flat), max(1, len(flat) // 40)):
            before = flat[index].item()
            ends = []
            for end in (before + step, before - step):
                flat[index] = end
                ends.append(value().item())
            flat[index] = before
            slope = (ends[0] - ends[1]) / (2 * step)
            assert gradient[index].item() == pytest.approx(slope, abs=1e-6, rel=1e-5)


@every_case
@devices
def test_training_by_rows_equals_training_by_plain_adam(
    name: str, settings: dict[str, object], device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optimiser, "MIN_VALUES", -math.inf)
    training = training_of(name)
    model, plain = build(name, settings, device), build(name, settings, device)
    subject = Optimiser(
        config_of(name, settings), model, Adam.start(model, 0.02), {"user": 6, "item": 14}
    )
    assert (subject.model is not model) == (device == "cpu")
    reference = torch.optim.Adam(plain.parameters(), lr=0.02)
    for batch in batches(name, 30, device):
        reference.zero_grad()
        torch.manual_seed(0)
        torch.autograd.backward(batch.loss(plain, training))
        reference.step()
        torch.manual_seed(0)
        torch.autograd.backward(subject.prepare(batch).loss(subject.model, training))
        subject.step()
    subject.catch_up()
    for weight, expected in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(weight, expected, rtol=1e-3, atol=1e-4)


@every_case
@devices
def test_ranks_are_those_of_the_logits(name: str, settings: dict[str, object], device: str) -> None:
    model = build(name, settings, device).eval()
    user, item = np.repeat(np.arange(N_USERS), 2), np.tile([4, 11], N_USERS)
    none = np.empty(0, dtype=np.int64)
    seen = index_pairs(np.array([0, 0, 5]), np.array([3, 7, 12]), N_USERS, N_ITEMS)
    held_out = HeldOut(user, item, none, none, negatives=None, candidates=None)
    ranks = rank_all(ModelScorer(model, N_ITEMS), held_out, seen)
    users, items = (torch.arange(n, device=device) for n in (N_USERS, N_ITEMS))
    logits = model(users, items).detach().cpu().numpy().copy()
    logits[[0, 0, 5], [3, 7, 12]] = -np.inf
    pairs = zip(user, item, strict=True)
    assert ranks.tolist() == [int((logits[u] > logits[u, i]).sum()) for u, i in pairs]


@every_case
@devices
def test_a_saved_training_is_loaded(
    name: str, settings: dict[str, object], device: str, tmp_path: Path
) -> None:
    training = training_of(name).model_copy(update={"loss": "softmax"})
    config = Config(model=config_of(name, settings), training=training)
    model = build(name, settings, device)
    state = TrainingState(model, Adam.start(model, config.training.learning_rate), epoch=1)
    for batch in batches(name, 2, device):
        state.adam.zero_grad()
        torch.autograd.backward(batch.loss(model, config.training))
        state.adam.step()
    state.note_value(0.5)
    state.save(tmp_path / "state")
    loaded = TrainingState.load(tmp_path / "state", config, N_USERS, N_ITEMS, device)
    user, item = USER.to(device), ITEM.to(device)
    assert torch.equal(loaded.model(user, item), model(user, item))
    for weight, expected in zip(loaded.model.parameters(), model.parameters(), strict=True):
        assert torch.equal(weight, expected)
        for moment, values in state.adam.moments[expected].items():
            assert torch.equal(loaded.adam.moments[weight][moment], values)
    other = build(name, settings)
    assert loaded.best_weights is not None
    other.load_state_dict(loaded.best_weights)
    assert torch.equal(other(USER, ITEM), model.cpu()(USER, ITEM))


@every_case
def test_parameters_with_a_row_per_user_or_item_are_declared(
    name: str, settings: dict[str, object]
) -> None:
    model = build(name, settings)
    sizes: list[tuple[SideName, int]] = [("user", N_USERS), ("item", N_ITEMS)]
    for side, n in sizes:
        by_size = {
            key for key, weight in model.named_parameters() if weight.ndim and len(weight) == n
        }
        assert set(model.row_parameters(side)) == by_size


class Undeclared(InnerProduct):
    """Model with a weight per item that it does not declare."""

    def __init__(
        self, config: ModelConfig, n_users: int, n_items: int, generator: torch.Generator
    ) -> None:
        super().__init__(config, n_users, n_items, generator)
        self.prices = nn.Parameter(torch.zeros(n_items))


def test_a_parameter_with_undeclared_rows_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    # Training on the rows of a batch would update it at the wrong indices.
    monkeypatch.setitem(MODELS, "inner_product", ModelEntry(f"{__name__}:Undeclared"))
    config = ModelConfig(name="inner_product")
    model = build_model(config, N_USERS, N_ITEMS, torch.Generator())
    message = r"^Undeclared\.prices: has a row per user or per item, but no RowParameters declares"
    with pytest.raises(TypeError, match=message):
        Optimiser(config, model, Adam.start(model, 0.1), {"user": 2, "item": 2})


@pytest.mark.parametrize("name", MODELS)
def test_an_entry_says_whether_its_model_reads_histories(name: str) -> None:
    assert isinstance(build(name, {}), HistoryModel) == MODELS[name].reads_histories
