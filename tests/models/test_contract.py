"""The contract that every model of `MODELS` keeps: whoever adds one gets these tests with it."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from recsys.config.components import MODELS, ModelEntry
from recsys.config.sections import ModelConfig
from recsys.data.interactions import HeldOut
from recsys.data.negatives import index_pairs
from recsys.evaluation.ranking import ModelScorer, rank_all
from recsys.kernels import lookup as lookups
from recsys.kernels.adam import Adam
from recsys.models import Model, SideName, build_model
from recsys.models.inner_product import InnerProduct
from recsys.training.optimiser import Optimiser

N_USERS, N_ITEMS = 9, 13
USER, ITEM = (
    torch.tensor([3, 0, 3, 8]),
    torch.tensor([[0, 10, 4], [1, 1, 2], [9, 8, 12], [10, 0, 5]]),
)
SETTINGS: list[dict[str, object]] = [
    {"bias": True},
    {"bias": False},
    {"n_layers": 1, "embedding_dim": 1},
]

cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")
every_model = pytest.mark.parametrize("name", MODELS)
every_setting = pytest.mark.parametrize("settings", SETTINGS, ids=str)
devices = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=cuda)])


def build(name: str, settings: dict[str, object], device: str = "cpu") -> Model:
    config = ModelConfig.model_validate(
        {"name": name, "init_std": 0.5, "embedding_dim": 6, **settings}
    )
    return build_model(config, N_USERS, N_ITEMS, torch.Generator().manual_seed(0)).to(device)


@every_model
@every_setting
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


@every_model
@every_setting
@pytest.mark.parametrize("direct", [False, True], ids=["rows copied", "products from the table"])
def test_gradients_are_those_of_the_logits(
    name: str, settings: dict[str, object], direct: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Against differences of the logits themselves, which know nothing of any backward pass.
    monkeypatch.setattr(lookups, "MIN_VALUES", 0 if direct else 1 << 30)
    model = build(name, settings).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(
                torch.randn(
                    parameter.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
                ),
                alpha=0.1,
            )
    weights = torch.linspace(-1, 2, 12, dtype=torch.float64).view(4, 3)

    def value() -> Tensor:
        total: Tensor = (model(USER, ITEM) * weights).sum()
        return total

    torch.autograd.backward(value())
    step = 1e-6
    for parameter in model.parameters():
        assert parameter.grad is not None
        flat, gradient = parameter.data.view(-1), parameter.grad.reshape(-1)
        for place in range(0, len(flat), max(1, len(flat) // 40)):
            before = flat[place].item()
            ends = []
            for end in (before + step, before - step):
                flat[place] = end
                ends.append(value().item())
            flat[place] = before
            assert gradient[place].item() == pytest.approx(
                (ends[0] - ends[1]) / (2 * step), abs=1e-6, rel=1e-5
            )


@every_model
@every_setting
@devices
def test_the_ranking_goes_by_the_logits(
    name: str, settings: dict[str, object], device: str
) -> None:
    model = build(name, settings, device).eval()
    user, item = np.repeat(np.arange(N_USERS), 2), np.tile([4, 11], N_USERS)
    nothing = np.empty(0, dtype=np.int64)
    known = index_pairs(np.array([0, 0, 5]), np.array([3, 7, 12]), N_USERS, N_ITEMS)
    ranks = rank_all(
        ModelScorer(model, N_ITEMS), HeldOut(user, item, nothing, nothing, None, None), known
    )
    logits = (
        model(torch.arange(N_USERS, device=device), torch.arange(N_ITEMS, device=device))
        .detach()
        .cpu()
        .numpy()
        .copy()
    )
    logits[[0, 0, 5], [3, 7, 12]] = -np.inf
    assert ranks.tolist() == [
        int((logits[u] > logits[u, i]).sum()) for u, i in zip(user, item, strict=True)
    ]


@every_model
@every_setting
def test_weights_are_read_back(name: str, settings: dict[str, object]) -> None:
    model, other = build(name, settings), build(name, settings)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(USER, ITEM), model(USER, ITEM))


@every_model
@every_setting
def test_parameters_with_a_row_a_user_or_an_item_are_declared(
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
    """A model with a weight an item that it does not declare."""

    def __init__(
        self, config: ModelConfig, n_users: int, n_items: int, generator: torch.Generator
    ) -> None:
        super().__init__(config, n_users, n_items, generator)
        self.prices = nn.Parameter(torch.zeros(n_items))


def test_a_parameter_with_undeclared_rows_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    # Trained on the rows of a batch, it would be updated at the wrong places.
    monkeypatch.setitem(MODELS, "inner_product", ModelEntry(f"{__name__}:Undeclared"))
    config = ModelConfig(name="inner_product")
    model = build_model(config, N_USERS, N_ITEMS, torch.Generator())
    with pytest.raises(
        TypeError,
        match=r"^Undeclared\.prices: has a row a user or an item, but no RowParameters declares it$",
    ):
        Optimiser(config, model, Adam.start(model, 0.1), {"user": 2, "item": 2})
