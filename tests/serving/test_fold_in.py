"""Users folded in from their histories."""

import dataclasses
from collections.abc import Callable
from functools import partial

import numpy as np
import pyarrow as pa
import pytest
import torch

from recsys.config.schema import Config
from recsys.data.interactions import Interactions
from recsys.data.negatives import index_pairs
from recsys.errors import InputError
from recsys.serving.fold_in import with_histories, with_users
from recsys.serving.recommend import recommend
from recsys.serving.saved_model import SavedModel
from recsys.training import least_squares, row_solver
from recsys.training.checkpoint import start_training
from recsys.training.fit import fit
from tests.training.small_data import hold_out_users, make_interactions, two_tastes

SQUARED = {"loss": "squared", "n_negatives": 3, "l2": 0.1, "max_epochs": 3}


def train(
    data: Interactions, model: dict[str, object] | None = None, **training: object
) -> SavedModel:
    config = Config.model_validate(
        {
            "model": {"name": "inner_product", "embedding_dim": 6, **(model or {})},
            "training": {**SQUARED, **training},
        }
    )
    *_, last = fit(config, data, 0, rank=False)
    return SavedModel(
        config=config,
        model=last.state.model,
        user_ids=pa.array(np.arange(data.n_users)),
        item_ids=pa.array(100 + np.arange(data.n_items)),
        titles=pa.nulls(data.n_items, pa.string()),
        seen=data.seen,
        is_trained=np.ones(data.n_users, dtype=bool),
        metrics={"n_positives": len(data.user), "n_pairs": data.n_pairs},
    )


def train_encoder(data: Interactions, name: str = "autoencoder", **training: object) -> SavedModel:
    model = {"name": name, "n_layers": 1, "dropout": 0.5}
    values = {"loss": "softmax", "negative_sampling": "all", "l2": 0.0, "max_epochs": 20}
    return train(data, model, learning_rate=0.01, **values, **training)


def history_of(data: Interactions, users: list[int]) -> Interactions:
    """Return the interactions of some users, who get numbers from 0 in this order."""
    new = np.full(data.n_users, -1, dtype=np.int32)
    new[users] = np.arange(len(users))
    order = np.argsort(new[data.user], kind="stable")
    order = order[new[data.user][order] >= 0]
    low = np.argsort(new[data.low_user], kind="stable")
    low = low[new[data.low_user][low] >= 0]
    user, low_user = new[data.user][order], new[data.low_user][low]
    item, low_item = data.item[order], data.low_item[low]
    both = np.r_[user, low_user], np.r_[item, low_item]
    return Interactions(
        len(users),
        data.n_items,
        user,
        item,
        None,
        low_user,
        low_item,
        index_pairs(*both, len(users), data.n_items),
        None,
        None if data.n_later is None else data.n_later[order],
    )


@pytest.mark.parametrize("short_share", [0, 100])
@pytest.mark.parametrize("half_life", [None, 2.0])
def test_a_training_user_gets_its_own_vector(
    half_life: float | None, short_share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_solver, "SHORT_SHARE", short_share)
    data = two_tastes()
    n_later = np.tile(np.random.default_rng(0).permutation(8), 60).astype(np.int32)
    data = dataclasses.replace(data, n_later=n_later)
    saved = train(data, recency_half_life=half_life)
    folded = with_users(saved, pa.array(["c", "a", "b"]), history_of(data, [30, 7, 59]))
    found, trained = (
        model.get_parameter("users.weight").detach() for model in (folded.model, saved.model)
    )
    torch.testing.assert_close(found, trained[[30, 7, 59]], atol=1e-5, rtol=1e-5)
    table, own = recommend(folded, ["b"], 5), recommend(saved, [59], 5)
    assert table["item_id"].to_pylist() == own["item_id"].to_pylist()
    assert table["score"].to_pylist() == pytest.approx(own["score"].to_pylist(), abs=1e-4)


@pytest.mark.parametrize("name", ["autoencoder", "diffusion"])
@pytest.mark.parametrize("half_life", [None, 2.0])
def test_an_encoder_encodes_a_training_user_to_its_own_latent(
    half_life: float | None, name: str
) -> None:
    data = two_tastes()
    n_later = np.tile(np.random.default_rng(0).permutation(8), 60).astype(np.int32)
    data = dataclasses.replace(data, n_later=n_later)
    saved = train_encoder(data, name, recency_half_life=half_life)
    folded = with_users(saved, pa.array(["c", "a", "b"]), history_of(data, [30, 7, 59]))
    found, trained = (model.get_buffer("latents") for model in (folded.model, saved.model))
    torch.testing.assert_close(found, trained[[30, 7, 59]], atol=1e-5, rtol=1e-5)
    history = make_interactions(2, 40, [(0, 1), (0, 3), (0, 5)], [], low=[(1, 2)])
    history = dataclasses.replace(history, n_later=np.array([2, 1, 0], dtype=np.int32))
    new = with_users(saved, pa.array(["new", "sad"]), history)
    assert {item % 2 for item in recommend(new, ["new"], 5)["item_id"].to_pylist()} == {1}
    assert new.is_trained.tolist() == [True, False]


@pytest.mark.parametrize("train_on", [train, train_encoder])
@pytest.mark.parametrize("half_life", [None, 2.0])
def test_a_user_who_is_held_out_whole_is_folded_in(
    half_life: float | None, train_on: Callable[..., SavedModel]
) -> None:
    n_later = np.tile(np.random.default_rng(0).permutation(8), 60).astype(np.int32)
    everyone = dataclasses.replace(two_tastes(), n_later=n_later)
    data = hold_out_users(everyone, [30, 7, 59])
    saved = train_on(data, recency_half_life=half_life)
    folded = with_users(saved, pa.array(["c", "a", "b"]), history_of(everyone, [30, 7, 59]))
    name = "latents" if train_on is train_encoder else "users.weight"
    found, trained = (model.state_dict()[name] for model in (folded.model, saved.model))
    torch.testing.assert_close(found, trained[[30, 7, 59]], atol=1e-5, rtol=1e-5)
    assert found.abs().amax(1).min() > 0.01


@pytest.mark.parametrize("half_life", [None, 2.0])
def test_nothing_is_learned_from_a_user_who_is_held_out_whole(half_life: float | None) -> None:
    n_later = np.tile(np.random.default_rng(0).permutation(8), 60).astype(np.int32)
    data = hold_out_users(dataclasses.replace(two_tastes(), n_later=n_later), [59, 58])
    # The same without these users, who are the last.
    nothing = dataclasses.replace(
        data, n_users=58, given=None, seen=index_pairs(data.user, data.item, 58, 40)
    )
    model = {"name": "inner_product", "embedding_dim": 6}
    training = {**SQUARED, "recency_half_life": half_life}
    config = Config.model_validate({"model": model, "training": training})
    first = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    found = []
    for rows in (data, nothing):
        state = start_training(config, rows.n_users, 40, 0, "cpu")
        state.model.get_parameter("items.weight").data.copy_(first)
        *_, last = fit(config, rows, 0, rank=False, state=state)
        weights = (state.model.get_parameter(f"{side}.weight") for side in ("users", "items"))
        found.append([last.metrics["train_loss"], *(rows.detach()[:58] for rows in weights)])
    torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=1e-5)


def test_a_history_is_a_list_of_items_from_the_earliest_to_the_latest() -> None:
    data = two_tastes()
    n_later = np.tile(np.random.default_rng(0).permutation(8), 60).astype(np.int32)
    saved = train(dataclasses.replace(data, n_later=n_later), recency_half_life=1.0)
    # 107 counts at its last place, and item 999 is not known.
    listed: list[list[object]] = [[107, 103, "999", "101", 107], [], [102]]
    found = with_histories(saved, listed, pa.array(["a", "b", "c"]))
    pairs = [(0, 1), (0, 3), (0, 7), (2, 2)]
    plain = dataclasses.replace(
        make_interactions(3, 40, pairs, []), n_later=np.array([1, 2, 0, 0], dtype=np.int32)
    )
    expected = with_users(saved, pa.array(["a", "b", "c"]), plain)
    assert found.is_trained.tolist() == [True, False, True]
    assert recommend(found, ["c", "a"], 40).equals(recommend(expected, ["c", "a"], 40))
    assert not {101, 103, 107} & set(recommend(found, ["a"], 40)["item_id"].to_pylist())


@pytest.mark.parametrize("trained", [train, train_encoder])
def test_a_history_without_a_known_positive_folds_in_nobody(
    trained: Callable[[Interactions], SavedModel],
) -> None:
    saved, unknown = trained(two_tastes()), [999, None]
    found = with_histories(saved, [[], unknown], pa.array([0, 1]))
    assert found.is_trained.tolist() == [False, False]
    disliking = with_users(saved, pa.array([0]), make_interactions(1, 40, [], [], low=[(0, 2)]))
    assert disliking.is_trained.tolist() == [False]


def test_users_may_be_folded_in_again() -> None:
    once = with_histories(train(two_tastes()), [[103, 107]], pa.array([0]))
    twice = with_histories(once, [[103, 107]], pa.array([0]))
    assert recommend(twice, [0], 40).equals(recommend(once, [0], 40))


def test_wide_rows_are_solved_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    data = two_tastes()
    saved = train(data)
    for module in (least_squares, row_solver):  # training would solve 2 columns at a time
        monkeypatch.setattr(module, "COLUMNS", 2)
    monkeypatch.setattr(row_solver, "SHORT_SHARE", 0)
    folded = with_users(saved, pa.array(["new"]), history_of(data, [4]))
    found = folded.model.get_parameter("users.weight").detach()
    expected = saved.model.get_parameter("users.weight").detach()[[4]]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "train_on", [train, train_encoder, partial(train_encoder, name="diffusion")]
)
def test_items_that_training_has_not_seen_say_nothing(
    train_on: Callable[[Interactions], SavedModel],
) -> None:
    train_pairs = [(user, item) for user in range(6) for item in range(5)]
    saved = train_on(make_interactions(6, 8, train_pairs, []))
    history = make_interactions(2, 8, [(0, 2), (1, 7)], [])
    folded = with_users(saved, pa.array(["seen", "unseen"]), history)
    assert folded.is_trained.tolist() == [True, False]


def test_a_new_user_is_recommended_its_taste_and_nothing_of_its_history() -> None:
    saved = train(two_tastes())
    history = make_interactions(2, 40, [(0, 1), (0, 3), (0, 5)], [], low=[(0, 0), (1, 2)])
    folded = with_users(saved, pa.array(["new", "sad"]), history)
    items = recommend(folded, ["new"], 5)["item_id"].to_pylist()
    assert {item % 2 for item in items} == {1}
    assert not {101, 103, 105} & set(items)
    assert folded.is_trained.tolist() == [True, False]  # one disliked item says nothing
    assert len(saved.user_ids) == 60  # the model itself is as it was


def test_models_that_cannot_fold_in() -> None:
    data = two_tastes()
    saved, history = train(data), history_of(data, [0])
    ids = pa.array([0])
    gradient = dataclasses.replace(saved, config=Config())
    with pytest.raises(InputError, match="to fold in users, but got neumf with the loss bce"):
        with_users(gradient, ids, history)
    joined = dataclasses.replace(saved, members=[saved.config])
    with pytest.raises(InputError, match="but got an ensemble"):
        with_users(joined, ids, history)
    with pytest.raises(InputError, match="but got a model of an earlier version"):
        with_users(dataclasses.replace(saved, metrics={}), ids, history)
