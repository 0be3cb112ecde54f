"""Residual quantisation: its arithmetic by hand and by plain loops, and the training with it."""

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from recsys.config.schema import Config
from recsys.data.interactions import HeldOut, Interactions
from recsys.evaluation.ranking import rank_all
from recsys.evaluation.scorers import ModelScorer
from recsys.final.train import train_for_validation
from recsys.kernels.codebooks import (
    DECAY,
    Quantised,
    fit_codebooks,
    follow,
    perplexities,
    quantise,
    restart_unused,
    sum_entries,
    unique_share,
)
from recsys.kernels.lookup import rows_of
from recsys.models.rqvae import RQVAE
from recsys.serving import saved_model
from recsys.serving.saved_model import SavedModel
from recsys.training import full_softmax, optimiser
from recsys.training.checkpoint import TrainingState, start_training
from recsys.training.fit import fit
from recsys.training.row_batch import RowBatch
from tests.training.small_data import make_interactions, two_tastes

TRAINING: dict[str, Any] = {"loss": "softmax", "learning_rate": 0.02, "batch_size": 100}
FULL = {"negative_sampling": "all"}


def config_of(model: dict[str, Any] | None = None, **training: object) -> Config:
    return Config.model_validate(
        {
            "model": {"name": "rqvae", "embedding_dim": 8, "n_codes": 16, **(model or {})},
            "training": {**TRAINING, "max_epochs": 6, **training},
        }
    )


def clusters(n_users: int = 90, n_items: int = 160, seed: int = 0) -> Interactions:
    """Interactions of users and items with places on a circle: a user likes what is near."""
    rng = np.random.default_rng(seed)
    train, held_out = [], []
    for user in range(n_users):
        near = (user * n_items // n_users + np.arange(-14, 14)) % n_items
        liked = rng.choice(near, 15, replace=False).tolist()
        train += [(user, item) for item in liked[:-1]]
        held_out.append((user, liked[-1]))
    return make_interactions(n_users, n_items, train, held_out)


def train(config: Config, data: Interactions, seed: int = 0) -> RQVAE:
    *_, last = fit(config, data, seed, rank=False)
    assert isinstance(last.state.model, RQVAE)
    return last.state.model


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def by_hand(learning: dict[str, Any] | None = None) -> RQVAE:
    """Model of 2 users and 4 items in the plane, with two levels of two codes."""
    config = config_of({"embedding_dim": 2, "n_levels": 2, **(learning or {})})
    model = start_training(config, 2, 4, 0, "cpu").model
    assert isinstance(model, RQVAE)
    with torch.no_grad():
        model.users.weight.copy_(torch.tensor([[1.0, 0.0], [0.5, 2.0]]))
        model.items.weight.copy_(torch.tensor([[1.0, 0.2], [-1.0, 0.0], [1.5, 0.0], [0.0, 3.0]]))
        model.start.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 0.0], [1.0, 1.0], [0.0, 2.0]]))
        model.decoder.copy_(torch.tensor([[2.0, 0.0], [0.0, 1.0]]))
    model.codebooks = torch.tensor([[[1.0, 0.0], [-1.0, 0.0]], [[0.0, 0.5], [0.5, 0.0]]])
    model.counts = torch.ones(2, 2)
    model.is_quantised.fill_(True)
    return model


def test_codes_equal_a_plain_loop() -> None:
    vectors, codebooks = draw(50, 3).numpy(), draw(4, 7, 3, seed=1).numpy()
    found = quantise(torch.from_numpy(vectors), torch.from_numpy(codebooks))
    for row, vector in enumerate(vectors):
        residual = vector.copy()
        for level, codebook in enumerate(codebooks):
            assert found.residuals[level, row].numpy() == pytest.approx(residual, abs=1e-6)
            code = int(np.argmin([((residual - entry) ** 2).sum() for entry in codebook]))
            assert found.codes[row, level] == code
            residual -= codebook[code]
        assert found.residuals[-1, row].numpy() == pytest.approx(residual, abs=1e-6)
    entries = sum_entries(found.codes.to(torch.uint8), torch.from_numpy(codebooks))
    assert (vectors - entries.numpy()) == pytest.approx(found.residuals[-1].numpy(), abs=1e-5)


def test_a_moving_average_by_hand() -> None:
    codebooks = torch.tensor([[[1.0], [10.0]], [[0.0], [5.0]]])
    counts = torch.tensor([[2.0, 3.0], [4.0, 1.0]])
    residuals = torch.tensor([[[2.0], [4.0]], [[1.0], [6.0]], [[9.0], [9.0]]])
    follow(codebooks, counts, Quantised(torch.tensor([[0, 0], [0, 1]]), residuals))
    # Level 0: both residuals, 2 and 4, have code 0. Level 1: 1 has code 0, and 6 has code 1.
    kept, new = DECAY, 1 - DECAY
    numbers = [kept * 2 + new * 2, kept * 4 + new, kept + new]
    assert counts.flatten().tolist() == pytest.approx([numbers[0], kept * 3, *numbers[1:]])
    means = [(kept * 2 * 1 + new * 6) / numbers[0], 10.0, new / numbers[1], kept * 5 + new * 6]
    assert codebooks.flatten().tolist() == pytest.approx(means)
    # An entry without residuals stays even where its number has decayed to 0.
    counts[0, 1] = 0.0
    follow(codebooks, counts, Quantised(torch.tensor([[0, 0], [0, 1]]), residuals))
    assert codebooks[0, 1] == 10.0


def test_unused_entries_restart_at_residuals_level_by_level() -> None:
    vectors = torch.tensor([[0.0], [1.0], [10.0], [11.0]])
    codebooks, counts = torch.tensor([[[0.5], [90.0]], [[0.5], [-70.0]]]), torch.ones(2, 2) * 7
    restart_unused(codebooks, counts, vectors, torch.Generator().manual_seed(0))
    assert counts.tolist() == [[7.0, 1.0], [7.0, 1.0]]
    assert codebooks[:, 0].flatten().tolist() == [0.5, 0.5]
    first = codebooks[0, 1].item()
    assert first in (0.0, 1.0, 10.0, 11.0)
    left = [min((vector - 0.5, vector - first), key=abs) for vector in (0.0, 1.0, 10.0, 11.0)]
    assert codebooks[1, 1].item() in left
    assert all(
        (torch.bincount(codes, minlength=2) > 0).all()
        for codes in quantise(vectors, codebooks).codes.T
    )


def test_k_means_finds_separated_groups() -> None:
    centers = torch.tensor([[0.0, 0.0], [100.0, 0.0], [0.0, 100.0], [100.0, 100.0]])
    vectors = (centers[:, None] + draw(4, 30, 2)).reshape(-1, 2)
    generator = torch.Generator().manual_seed(1)
    codebooks, counts = fit_codebooks(vectors, 2, 8, generator)
    left = quantise(vectors, codebooks).residuals.square().sum(2).mean(1)
    assert left[1] < 2
    assert left[2] < left[1]
    codes = quantise(vectors, codebooks).codes
    assert counts.sum(1).tolist() == [120.0, 120.0]
    assert torch.equal(counts[1], torch.bincount(codes[:, 1], minlength=8).float())


def test_perplexity_and_unique_share_by_hand() -> None:
    codes = torch.tensor([[0, 1], [1, 1], [2, 1], [2, 1]], dtype=torch.uint8)
    half = math.exp(2 * 0.25 * math.log(4) + 0.5 * math.log(2))
    assert perplexities(codes, 4).tolist() == pytest.approx([half, 1.0])
    assert unique_share(codes) == 0.5


def test_the_loss_of_a_step_and_its_gradients_by_hand() -> None:
    model = by_hand({"commitment_weight": 0.5, "reconstruction_weight": 0.25, "bias": False})
    none = torch.empty(0, dtype=torch.int64)
    # Item 1 comes twice, and counts once in the penalty; item 3 does not come.
    batch = RowBatch(torch.tensor([0, 1]), torch.tensor([[0, 1], [2, 1]]), none, none, None)
    loss = batch.loss(model.train(), config_of().training)
    # Item 0: (1, .2) leaves (0, .2), then (0, -.3), as .5 is nearer to .2 in the first entry. Item
    # 1: (-1, 0) leaves 0; both entries are .5 away, and the first is taken: (0, -.5). Item 2:
    # (1.5, 0) leaves (.5, 0) and nothing.
    entries = np.array([[1.0, 0.5], [-1.0, 0.5], [1.5, 0.0]])
    vectors = entries * np.array([2.0, 1.0])
    start = np.array([[1.0, 0.0], [0.0, 0.0], [1.0, 1.0]])
    scores = vectors @ np.array([[1.0, 0.0], [0.5, 2.0]]).T
    ranking = [
        math.log1p(math.exp(scores[1, user] - scores[item, user]))
        for user, item in ((0, 0), (1, 2))
    ]
    commitment = (0.2**2 + 0.3**2 + 0.0 + 0.5**2 + 0.5**2 + 0.0) / 3
    reconstruction = float(((vectors - start) ** 2).sum(1).mean())
    expected = sum(ranking) / 2 + 0.5 * commitment + 0.25 * reconstruction
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    torch.autograd.backward(loss)
    # Straight through: the gradient of v_i reaches E_i by way of the decoder alone, and that of
    # the commitment is 2 (r_1 + r_2), the entries being constants.
    away = [
        1 / (1 + math.exp(scores[item, user] - scores[1, user])) for user, item in ((0, 0), (1, 2))
    ]
    of_scores = (
        np.array(
            [
                [-away[0], 0.0],
                [away[0] + 0.5 * away[1], 2.0 * away[1]],
                [-0.5 * away[1], -2.0 * away[1]],
            ]
        )
        / 2
    )
    of_vectors = of_scores + 0.25 * 2 * (vectors - start) / 3
    left = np.array([[0.0, 0.2 - 0.3], [0.0, -0.5], [0.5, 0.0]])
    gradient = of_vectors * np.array([2.0, 1.0]) + 0.5 * 2 * left / 3
    assert model.items.weight.grad is not None
    assert model.items.weight.grad[:3].numpy() == pytest.approx(gradient, abs=1e-5)
    assert not model.items.weight.grad[3].any()


def test_low_ratings_get_the_penalty_too() -> None:
    losses = []
    for weight in (0.0, 0.5):
        model = by_hand({"commitment_weight": weight, "reconstruction_weight": 0.0}).train()
        item, low = torch.tensor([[0, 1]]), torch.tensor([2])
        batch = RowBatch(torch.tensor([0]), item, torch.tensor([1]), low, None)
        losses.append(batch.loss(model, config_of(loss="bce").training).item())
    commitment = (0.2**2 + 0.3**2 + 0.5**2 + 0.5**2) / 3
    assert losses[1] - losses[0] == pytest.approx(0.5 * commitment, rel=1e-4)


def test_a_step_moves_the_codebooks_and_an_evaluation_does_not() -> None:
    model = by_hand()
    before = model.codebooks.clone()
    model.eval().item_side(None)
    assert torch.equal(model.codebooks, before)
    model.train().item_side(torch.tensor([[1, 1], [1, 2]]))
    # At level 0 one item of two has each code, whose mean is at its own place.
    moved = before[0].clone()
    moved[0, 0] += (1 - DECAY) * (1.5 - 1.0)
    torch.testing.assert_close(model.codebooks[0], moved)


@pytest.mark.parametrize("settings", [{}, FULL], ids=["sampled", "full"])
def test_every_code_is_used_and_each_level_leaves_less(settings: dict[str, Any]) -> None:
    data = clusters()
    model = train(config_of({"n_levels": 3}, **settings), data)
    n_codes = model.codebooks.shape[1]
    assert n_codes == 16
    codes = model.codes.numpy()
    for level in codes.T:
        counts = np.bincount(level, minlength=n_codes)
        assert counts.min() > 0
        shares = counts / counts.sum()
        assert math.exp(-(shares * np.log(shares)).sum()) >= n_codes / 4
    encoded = (model.items.weight @ model.encoder.T).detach().numpy()
    left, errors = encoded, [(encoded**2).sum()]
    for level, codebook in enumerate(model.codebooks.numpy()):
        left = left - codebook[codes[:, level]]
        errors.append((left**2).sum())
    assert all(after < before for before, after in itertools.pairwise(errors))
    _, numbers = np.unique(codes, axis=0, return_counts=True)
    assert model.metrics()["unique_codes"] == pytest.approx((numbers == 1).sum() / data.n_items)
    assert model.metrics()["least_perplexity"] >= n_codes / 4


def test_there_are_at_least_four_items_for_each_code() -> None:
    for n_items, n_codes in ((40, 10), (64, 16), (1000, 16), (3, 1)):
        model = start_training(config_of(), 2, n_items, 0, "cpu").model
        assert model.get_buffer("codebooks").shape == (4, n_codes, 8)


def test_many_levels_approach_the_unquantised_model() -> None:
    shares = []
    for n_levels in (2, 8):
        model = train(config_of({"n_levels": n_levels}), clusters())
        encoded = model._encode(None)
        left = encoded - sum_entries(model.codes, model.codebooks)
        shares.append((left.square().sum() / encoded.square().sum()).item())
    assert shares[1] < 0.005
    assert shares[1] < shares[0] / 20


def test_training_starts_from_least_squares() -> None:
    data = clusters()
    model = train(config_of(learning_rate=1e-9, max_epochs=1), data)
    # The same initial weights are drawn for matrix factorisation.
    squares = {"loss": "squared", "l2": 0.1, "n_negatives": 16, "max_epochs": 5}
    config = Config.model_validate(
        {"model": {"name": "inner_product", "embedding_dim": 8}, "training": squares}
    )
    *_, last = fit(config, data, 0, rank=False)
    for side in ("users", "items"):
        found, expected = (m.get_parameter(f"{side}.weight") for m in (model, last.state.model))
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(model.start.weight, model.items.weight.data, atol=1e-6, rtol=1e-5)


def held_out_ranks(model: RQVAE, data: Interactions) -> npt.NDArray[Any]:
    assert isinstance(data.held_out, HeldOut)
    return rank_all(ModelScorer(model, data.n_items), data.held_out, data.seen)


def test_codes_alone_give_the_same_ranks_once_the_model_is_saved(tmp_path: Path) -> None:
    data, config = clusters(), config_of()
    trained = train(config, data)
    expected = held_out_ranks(trained, data)
    trained.items.weight.data.fill_(torch.nan)  # which evaluation does not read
    trained.start.weight.fill_(torch.nan)
    model = train_for_validation(config_of(), data, 0, 6).model
    assert isinstance(model, RQVAE)
    ids = pa.array(range(data.n_items))
    saved = SavedModel(
        config=config,
        model=trained,
        user_ids=pa.array(range(data.n_users)),
        item_ids=ids,
        titles=pa.array([None] * data.n_items, pa.string()),
        seen=data.seen,
        is_trained=np.ones(data.n_users, dtype=bool),
        metrics={},
    )
    trained.end_training()
    saved_model.save(tmp_path / "model", saved)
    with safe_open(tmp_path / "model" / "model.safetensors", framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert (
        set(tensors)
        == set(model.state_dict())
        == {
            "codebooks",
            "codes",
            "decoder",
            "intercepts.everywhere",
            "intercepts.item",
            "intercepts.user",
            "users.weight",
        }
    )
    assert tensors["codes"].shape == (data.n_items, 4)
    assert tensors["codes"].dtype == torch.uint8
    loaded = saved_model.load(tmp_path / "model").model
    assert isinstance(loaded, RQVAE)
    assert held_out_ranks(loaded, data).tolist() == expected.tolist()
    # The vectors of items from the file alone, by a plain loop.
    for item, codes in enumerate(tensors["codes"].tolist()):
        entries = sum(tensors["codebooks"][level, code] for level, code in enumerate(codes))
        vector = tensors["decoder"] @ entries
        (found,) = loaded.item_side(torch.tensor([item])).factors
        torch.testing.assert_close(rows_of(found)[0], vector)


@pytest.mark.parametrize("settings", [{}, FULL], ids=["sampled", "full"])
@pytest.mark.parametrize("by_rows", [False, True])
def test_the_same_seed_gives_the_same_codes_also_across_a_resume(
    settings: dict[str, Any], by_rows: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if by_rows:
        monkeypatch.setattr(optimiser, "MIN_VALUES", -math.inf)
        monkeypatch.setattr(full_softmax, "MAX_ITEMS", 25)
    data, config = two_tastes(), config_of(**settings)
    unbroken = []
    for epoch in fit(config, data, 3, n_segments=2):
        tensors = {name: values.clone() for name, values in epoch.state.model.state_dict().items()}
        unbroken.append((epoch.metrics["train_loss"], tensors))
        if epoch.step == 5:  # within an epoch
            epoch.state.save(tmp_path / "state")
    again = [epoch.metrics["train_loss"] for epoch in fit(config, data, 3, n_segments=2)]
    assert again == [loss for loss, _ in unbroken]
    other = train(config, data, seed=4)
    assert not torch.equal(other.codes, unbroken[-1][1]["codes"])
    state = TrainingState.load(tmp_path / "state", config, data.n_users, data.n_items, "cpu")
    resumed = [
        (epoch.metrics["train_loss"], epoch.state.model.state_dict())
        for epoch in fit(config, data, 3, n_segments=2, state=state)
    ]
    assert [loss for loss, _ in resumed] == [loss for loss, _ in unbroken[4:]]
    for name, values in unbroken[-1][1].items():
        assert torch.equal(resumed[-1][1][name], values), name


@pytest.mark.parametrize("settings", [{}, FULL], ids=["sampled", "full"])
def test_training_by_rows_equals_training_of_whole_embeddings(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A batch takes some of the items, whose start embeddings go with them.
    monkeypatch.setattr(full_softmax, "MAX_ITEMS", 25)
    data, config = two_tastes(), config_of({"reconstruction_weight": 5.0}, **settings)
    losses = []
    for bound in (math.inf, -math.inf):
        monkeypatch.setattr(optimiser, "MIN_VALUES", bound)
        losses.append([e.metrics["train_loss"] for e in fit(config, data, 0, n_epochs=2)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
