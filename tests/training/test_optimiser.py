import pytest
import torch
from torch import Tensor

from recsys.config.components import MODELS
from recsys.config.sections import ModelConfig
from recsys.kernels import row_adam
from recsys.kernels.adam import Adam
from recsys.models import Model, SideName, build_model
from recsys.training import optimiser
from recsys.training.optimiser import Optimiser
from recsys.training.row_batch import RowBatch

N_USERS, N_ITEMS = 50, 40
N_LOOKUPS: dict[SideName, int] = {"user": 6, "item": 10}


@pytest.fixture
def by_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimiser, "MIN_VALUES", 0)
    monkeypatch.setattr(optimiser, "MIN_ROWS_PER_LOOKUP", 0)


def make(name: str) -> tuple[ModelConfig, Model, Adam]:
    config = ModelConfig.model_validate({"name": name, "embedding_dim": 4, "init_std": 0.5})
    model = build_model(config, N_USERS, N_ITEMS, torch.Generator().manual_seed(0))
    return config, model, Adam.start(model, 0.05)


def draw_batches(n: int) -> list[RowBatch]:
    """Small batches with repeated ids; an id is missing from most of them."""
    generator = torch.Generator().manual_seed(1)

    def draw(n_ids: int, *shape: int) -> Tensor:
        return torch.randint(n_ids, shape, generator=generator)

    return [
        RowBatch(draw(N_USERS, 4), draw(N_ITEMS, 4, 2), draw(N_USERS, 2), draw(N_ITEMS, 2), None)
        for _ in range(n)
    ]


def loss_of(model: Model, batch: RowBatch) -> Tensor:
    low = model(batch.low_user, batch.low_item.unsqueeze(1))
    loss: Tensor = (model(batch.user, batch.item) - 1).square().mean() + (low + 1).square().mean()
    return loss


@pytest.mark.parametrize(
    "name", [name for name, entry in MODELS.items() if not entry.reads_histories]
)
@pytest.mark.parametrize("max_steps", [4096, 7])
@pytest.mark.usefixtures("by_rows")
def test_rows_get_what_plain_adam_gives_them(
    name: str, max_steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_adam, "MAX_STEPS", max_steps)
    config, model, adam = make(name)
    subject = Optimiser(config, model, adam, N_LOOKUPS)
    assert subject.model is not model
    _, plain, _ = make(name)
    reference = torch.optim.Adam(plain.parameters(), lr=0.05)
    for step, batch in enumerate(draw_batches(60)):
        reference.zero_grad()
        torch.autograd.backward(loss_of(plain, batch))
        reference.step()
        prepared = subject.prepare(batch)
        torch.autograd.backward(loss_of(subject.model, prepared))
        subject.step()
        if step == 30:
            subject.catch_up()
            adam.learning_rate = reference.param_groups[0]["lr"] = 0.02
    subject.catch_up()
    for weight, expected in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(weight, expected, rtol=1e-3, atol=1e-4)
        for moment in ("step", "exp_avg", "exp_avg_sq"):
            torch.testing.assert_close(
                adam.moments[weight][moment],
                reference.state[expected][moment],
                rtol=1e-3,
                atol=1e-5,
            )


@pytest.mark.usefixtures("by_rows")
def test_a_missed_row_moves_on_along_its_first_moment() -> None:
    # One gradient at step 1 and none at steps 2 and 3: m / sqrt(v) is the gradient's sign, decayed
    # and corrected by hand.
    config, model, adam = make("inner_product")
    subject = Optimiser(config, model, adam, N_LOOKUPS)
    before = model.get_parameter("biases.user").detach().clone()
    none = torch.empty(0, dtype=torch.int64)
    for user in (3, 4, 4):
        batch = subject.prepare(
            RowBatch(torch.tensor([user]), torch.tensor([[user]]), none, none, None)
        )
        torch.autograd.backward(subject.model(batch.user, batch.item).sum())
        subject.step()
    subject.catch_up()
    moved = 1.0  # step 1: (0.1 / 0.1) / (sqrt(0.001) / sqrt(0.001))
    for step, (moment, square) in {2: (0.09, 0.000999), 3: (0.081, 0.000998001)}.items():
        moved += moment / (1 - 0.9**step) / (square / (1 - 0.999**step)) ** 0.5
    after = model.get_parameter("biases.user")
    assert (before[3] - after[3]).item() == pytest.approx(0.05 * moved, rel=1e-4)
    assert after[5].item() == before[5].item()


@pytest.mark.usefixtures("by_rows")
def test_a_batch_is_relabelled_and_its_rows_alone_are_copied() -> None:
    config, model, adam = make("gmf")
    subject = Optimiser(config, model, adam, N_LOOKUPS)
    ids = (
        torch.tensor([7, 49, 7]),
        torch.tensor([[0, 39], [39, 5], [0, 0]]),
        torch.tensor([49]),
        torch.tensor([6]),
    )
    batch = subject.prepare(RowBatch(*ids, None))
    torch.testing.assert_close(subject.model(batch.user, batch.item), model(ids[0], ids[1]))
    torch.testing.assert_close(
        subject.model(batch.low_user, batch.low_item[:, None]), model(ids[2], ids[3][:, None])
    )
    assert subject.model.get_parameter("users.weight").shape == (2, 4)
    assert subject.model.get_parameter("biases.item").shape == (4,)
    assert subject.model.get_parameter("weight") is model.get_parameter("weight")


@pytest.mark.parametrize(("n_users", "expected"), [(50_000, 2), (1000, 1000)])
def test_large_embeddings_are_updated_by_rows(n_users: int, expected: int) -> None:
    config = ModelConfig(name="gmf", embedding_dim=16)
    model = build_model(config, n_users, 30, torch.Generator().manual_seed(0))
    subject = Optimiser(config, model, Adam.start(model, 0.05), {"user": 100, "item": 500})
    none = torch.empty(0, dtype=torch.int64)
    subject.prepare(RowBatch(torch.tensor([7, 9]), torch.tensor([[0], [1]]), none, none, None))
    assert len(subject.model.get_parameter("users.weight")) == expected
    assert subject.model.get_parameter("items.weight") is model.get_parameter("items.weight")
