import pytest
import torch

from recsys.config.components import MODELS
from recsys.config.sections import ModelConfig
from recsys.kernels.lookup import Lookup, rows_of
from recsys.models import Model, Side, build_model
from recsys.models.gmf import GMF
from recsys.models.histories import HistoryModel
from recsys.models.inner_product import InnerProduct
from recsys.models.layers import Tower
from recsys.models.mlp import MLP
from recsys.models.neumf import NeuMF

N_USERS, N_ITEMS = 7, 11


def build(name: str, seed: int = 0, **settings: object) -> Model:
    config = ModelConfig.model_validate({"name": name, "init_std": 1.0, **settings})
    generator = torch.Generator().manual_seed(seed)
    model = build_model(config, N_USERS, N_ITEMS, generator)
    if isinstance(model, HistoryModel):
        model.latents.normal_(generator=generator)
    return model


def fill(model: Model, values: dict[str, list[float] | list[list[float]] | float]) -> None:
    """Set whole parameters by name."""
    with torch.no_grad():
        parameters = dict(model.named_parameters())
        for name, value in values.items():
            parameters[name].copy_(torch.tensor(value).expand_as(parameters[name]))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("bias", [True, False])
def test_items_by_row_and_items_for_all_get_the_same_logits(name: str, bias: bool) -> None:
    model = build(name, bias=bias, embedding_dim=5)
    user = torch.tensor([3, 0, 3, 6])
    item = torch.tensor([[0, 10, 4], [1, 1, 2], [9, 8, 7], [10, 0, 5]])
    every = model(user, torch.arange(N_ITEMS))
    assert every.shape == (4, N_ITEMS)
    torch.testing.assert_close(model(user, item), every.gather(1, item))


@pytest.mark.parametrize("name", MODELS)
def test_many_users_at_once_get_the_logits_of_each_alone(name: str) -> None:
    # From 16 users on torch computes the tower's layers for all items by another library.
    model = build(name, embedding_dim=5, n_layers=4)
    user, item = torch.arange(20) % N_USERS, torch.arange(N_ITEMS)
    torch.testing.assert_close(
        model(user, item), torch.cat([model(one, item) for one in torch.split(user, 1)])
    )


@pytest.mark.parametrize("name", MODELS)
def test_sides_of_some_items_score_these_items(name: str) -> None:
    model = build(name)
    user, item = torch.tensor([2, 5]), torch.arange(N_ITEMS)
    some = model.score(model.user_side(user), model.item_side(item).rows(slice(3, 6)))
    torch.testing.assert_close(some, model(user, item)[:, 3:6])


def test_inner_product_by_hand() -> None:
    model = build("inner_product", embedding_dim=2)
    assert isinstance(model, InnerProduct)
    with torch.no_grad():
        model.users.weight[1] = torch.tensor([1.0, 2.0])
        model.items.weight[4] = torch.tensor([3.0, -5.0])
        model.biases.everywhere.fill_(0.5)
        model.biases.user[1] = 10
        model.biases.item[4] = 100
    assert model(torch.tensor([1]), torch.tensor([[4]])).item() == pytest.approx(
        3 - 10 + 0.5 + 10 + 100
    )


def test_gmf_by_hand() -> None:
    model = build("gmf", embedding_dim=2, bias=False)
    assert isinstance(model, GMF)
    with torch.no_grad():
        model.users.weight[1] = torch.tensor([1.0, 2.0])
        model.items.weight[4] = torch.tensor([3.0, -5.0])
        model.weight.copy_(torch.tensor([7.0, 0.1]))
    assert model(torch.tensor([1]), torch.tensor([[4]])).item() == pytest.approx(7 * 3 - 0.1 * 10)


def test_cosines_by_hand() -> None:
    for name, weight in (("inner_product", None), ("gmf", torch.tensor([2.0, 0.5]))):
        model = build(name, embedding_dim=2, similarity="cosine")
        assert isinstance(model, InnerProduct | GMF)
        with torch.no_grad():
            model.users.weight[1] = torch.tensor([3.0, 4.0])
            model.items.weight[4] = torch.tensor([0.0, -5.0])
            model.items.weight[5] = 0.0
            model.biases.item[4] = 100
            if weight is not None:
                model.get_parameter("weight").copy_(weight)  # w * u = (6, 2)
        cosine = -4 / 5 if weight is None else -2 / 40**0.5
        logits = model(torch.tensor([1]), torch.tensor([[4, 5]]))
        assert logits.tolist()[0] == pytest.approx([cosine + 100, 0])
        side = model.user_side(torch.tensor([1]))
        # L2 penalises the embedding itself, not its direction.
        norm = 25 if weight is None else 40
        assert rows_of(side.embeddings[0]).square().sum().item() == pytest.approx(norm)


def test_mlp_equals_a_tower_on_the_concatenation() -> None:
    model = build("mlp", embedding_dim=4, n_layers=2, bias=False)
    assert isinstance(model, MLP)
    fill(
        model,
        {"tower.biases.0": [0.1 * n for n in range(8)], "tower.biases.1": [-0.2, 0.3, 0.0, 0.5]},
    )
    user, item = torch.tensor([2]), torch.tensor([[9]])
    pair = torch.cat([model.users.weight[2], model.items.weight[9]])
    first = torch.cat([model.tower.of_user, model.tower.of_item], dim=1)
    hidden = torch.relu(first @ pair + model.tower.biases[0])
    hidden = torch.relu(model.tower.weights[0] @ hidden + model.tower.biases[1])
    assert hidden.shape == (4,)
    assert model(user, item).item() == pytest.approx((hidden @ model.output).item(), rel=1e-5)


def test_neumf_adds_gmf_and_mlp_with_their_own_embeddings() -> None:
    neumf, gmf, mlp = build("neumf"), build("gmf"), build("mlp")
    assert isinstance(neumf, NeuMF)
    pairs = {"product_users": "users", "product_items": "items", "product_output": "weight"}
    gmf.load_state_dict({**gmf.state_dict(), **_renamed(neumf, pairs)})
    pairs = {
        "tower_users": "users",
        "tower_items": "items",
        "tower_output": "output",
        "tower": "tower",
    }
    mlp.load_state_dict({**mlp.state_dict(), **_renamed(neumf, pairs)})
    user, item = torch.tensor([1, 4]), torch.tensor([[0, 3], [7, 7]])
    torch.testing.assert_close(neumf(user, item), gmf(user, item) + mlp(user, item))


def _renamed(model: Model, names: dict[str, str]) -> dict[str, torch.Tensor]:
    state = model.state_dict()
    renamed = {}
    for name, tensor in state.items():
        head, dot, tail = name.partition(".")
        if head in names:
            renamed[names[head] + dot + tail] = tensor
    return renamed


def test_a_product_starts_as_the_inner_product_and_with_gradients() -> None:
    gmf, inner = build("gmf", init_std=0.01), build("inner_product", init_std=0.01)
    user, item = torch.arange(N_USERS), torch.arange(N_ITEMS)
    torch.testing.assert_close(gmf(user, item), inner(user, item))
    for name in ("gmf", "neumf"):
        model = build(name, init_std=0.01)
        model(user, item).square().sum().backward()
        assert all(
            weight.grad is not None and weight.grad.abs().sum() > 0 for weight in model.parameters()
        )


def test_tower_widths_halve_and_stay_at_least_one() -> None:
    def widths(dim: int, n_layers: int) -> list[int]:
        return [len(bias) for bias in Tower(dim, n_layers, 0.0, torch.Generator()).biases]

    assert widths(16, 3) == [32, 16, 8]
    assert widths(1, 4) == [2, 1, 1, 1]
    assert widths(3, 4) == [6, 3, 1, 1]


@pytest.mark.parametrize("name", MODELS)
def test_weights_come_from_the_generator_alone(name: str) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = build(name, seed=5)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    same, other = build(name, seed=5), build(name, seed=6)
    assert all(
        torch.equal(a, b) for a, b in zip(first.parameters(), same.parameters(), strict=True)
    )
    assert any(
        not torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True)
    )


def test_embeddings_start_with_the_wanted_spread_and_biases_at_zero() -> None:
    config = ModelConfig(name="neumf", embedding_dim=32, init_std=0.05)
    model = build_model(config, 400, 300, torch.Generator().manual_seed(0))
    assert isinstance(model, NeuMF)
    assert model.tower_items.weight.std().item() == pytest.approx(0.05, rel=0.03)
    assert all(not bias.any() for bias in model.biases.parameters())
    assert not [
        name for name, _ in build("mlp", bias=False).named_parameters() if name.startswith("biases")
    ]


def test_biases_are_read_and_written_by_the_name_that_files_have() -> None:
    model = build("inner_product", embedding_dim=1)
    assert isinstance(model, InnerProduct)
    state = {
        "users.weight": torch.zeros(N_USERS, 1),
        "items.weight": torch.zeros(N_ITEMS, 1),
        "intercepts.everywhere": torch.tensor(0.5),
        "intercepts.user": torch.arange(7.0),
        "intercepts.item": torch.arange(11.0),
    }
    model.load_state_dict(state)
    assert model.biases.user.tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert model(torch.tensor([2]), torch.tensor([[10]])).item() == 0.5 + 2 + 10
    assert model.state_dict().keys() == state.keys()


@pytest.mark.parametrize("name", ["mlp", "neumf"])
def test_dropout_drops_in_training_alone(name: str) -> None:
    model = build(name, dropout=0.5)
    user, item = torch.arange(N_USERS), torch.arange(N_ITEMS)
    assert not torch.equal(model(user, item), model(user, item))
    model.eval()
    assert torch.equal(model(user, item), model(user, item))


def test_lookups_split_and_fold_into_rows_as_their_rows_do() -> None:
    embedding, ids = torch.arange(22.0).view(11, 2), torch.tensor([3, 10, 0, 3, 1, 7, 2, 9])
    lookup, rows = (
        Side((values,), (values,), None) for values in (Lookup(embedding, ids), embedding[ids])
    )
    (first, second), (rows_first, rows_second) = lookup.split(6), rows.split(6)
    pairs = [(first.unflatten(3), rows_first.unflatten(3)), (second, rows_second)]
    for found, expected in pairs:
        assert isinstance(found.factors[0], Lookup)
        assert torch.equal(rows_of(found.factors[0]), rows_of(expected.factors[0]))
        assert torch.equal(rows_of(found.embeddings[0]), rows_of(expected.embeddings[0]))
    assert rows_of(pairs[0][0].factors[0])[1, 2].tolist() == [14, 15]


def test_sides_split_and_fold_into_rows() -> None:
    ids = torch.arange(8)
    side = Side((ids[:, None].expand(8, 3),), (ids[:, None].expand(8, 2),), ids)
    rows, rest = side.split(6)
    rows = rows.unflatten(3)
    assert rows.bias is not None
    assert rest.bias is not None
    assert rows.bias.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert rows_of(rows.embeddings[0]).shape == (2, 3, 3)
    assert rows_of(rows.factors[0])[1, :, 0].tolist() == [3, 4, 5]
    assert rest.bias.tolist() == [6, 7]
    assert rows_of(rest.embeddings[0]).shape == (2, 3)
