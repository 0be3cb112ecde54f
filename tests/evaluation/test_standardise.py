"""Standardised scores and their weighted sum, against values by hand and a slow reference."""

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch

from recsys.config.components import MODELS
from recsys.config.schema import Config, replace_values
from recsys.config.sections import ModelConfig
from recsys.evaluation import standardise as module
from recsys.evaluation.evaluate import evaluate
from recsys.evaluation.ranking import rank_all, rank_among_candidates
from recsys.evaluation.scorers import ModelScorer, scorer_of
from recsys.evaluation.standardise import Standardised, build_ensemble, standardise
from recsys.models import Model, build_model
from recsys.models.histories import HistoryModel
from tests.training.small_data import make_interactions


def model_of(scores: npt.ArrayLike) -> Model:
    """Return an inner product with given scores, one row per user."""
    table = torch.as_tensor(np.asarray(scores, dtype=np.float32))
    n_users, n_items = table.shape
    config = ModelConfig(name="inner_product", embedding_dim=n_items, bias=False)
    model = build_model(config, n_users, n_items, torch.Generator())
    model.load_state_dict({"users.weight": table, "items.weight": torch.eye(n_items)})
    return model


def standardised(scores: npt.ArrayLike) -> Standardised:
    return standardise(model_of(scores), *np.shape(scores))


def all_scores(model: Model, n_users: int, n_items: int) -> npt.NDArray[np.float32]:
    scores: npt.NDArray[np.float32] = (
        ModelScorer(model, n_items).score_all(torch.arange(n_users)).numpy()
    )
    return scores


def test_scores_of_unlike_scales_count_alike() -> None:
    first, second = standardised([[1, 2, 3]]), standardised([[300, 100, 200]])
    assert first.mean.tolist() == [2]
    # The mean of the squares of -1, 0 and 1 is 2 / 3.
    assert first.scale.tolist() == pytest.approx([math.sqrt(3 / 2)])
    assert second.scale.tolist() == pytest.approx([math.sqrt(3 / 2) / 100])
    # Half of each: (-1 + 1) / 2, (0 - 1) / 2 and (1 + 0) / 2 deviations. The sum of the raw scores
    # would rank the first item first.
    found = all_scores(build_ensemble([first, second], [0.5, 0.5]), 1, 3)
    deviation = math.sqrt(3 / 2)
    np.testing.assert_allclose(found, [[0, -deviation / 2, deviation / 2]], atol=1e-6)


def test_a_member_without_an_opinion_of_a_user_does_not_count_there() -> None:
    # Equal but for rounding: 0.3 has no exact float, and sums of it round.
    unsure = [*[0.3] * 6, 0.3 + 3e-8]
    constant = standardised([unsure, [1.0, 2, 3, 4, 5, 6, 7]])
    assert constant.scale[0] == 0
    assert constant.scale[1] == pytest.approx(0.5)  # the variance of 1 to 7 is 4
    row = [7, 6, 5, 4, 3, 2, 1]
    other = standardised([row, row])
    found = all_scores(build_ensemble([constant, other], [0.5, 0.5]), 2, 7)
    np.testing.assert_allclose(found[0], [0.75, 0.5, 0.25, 0, -0.25, -0.5, -0.75], atol=1e-6)
    np.testing.assert_allclose(found[1], 0, atol=1e-6)


@pytest.mark.parametrize("max_items", [4096, 300])
def test_the_ensemble_equals_a_slow_reference(
    max_items: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_ITEMS", max_items)
    n_users, n_items, weights = 37, 1100, (0.5, 0.25, 0.125, 0.0625, 0.03125, 0.015625, 0.015625)
    models = [
        build_model(
            ModelConfig.model_validate({"name": name, "init_std": 1.0, "embedding_dim": 4}),
            n_users,
            n_items,
            torch.Generator().manual_seed(seed),
        )
        for seed, name in enumerate(MODELS)
    ]
    for model in models:
        if isinstance(model, HistoryModel):
            model.latents.normal_(generator=torch.Generator().manual_seed(9))
    ensemble = build_ensemble([standardise(model, n_users, n_items) for model in models], weights)
    expected = np.zeros((n_users, n_items))
    drawn = np.arange(n_items)
    if max_items < n_items:
        drawn = np.random.default_rng(0).choice(n_items, max_items, replace=False)
    for model, weight in zip(models, weights, strict=True):
        scores = all_scores(model, n_users, n_items).astype(np.float64)
        for user, row in enumerate(scores):
            expected[user] += weight * (row - np.mean(row[drawn])) / np.std(row[drawn])
    np.testing.assert_allclose(all_scores(ensemble, n_users, n_items), expected, atol=2e-4)
    # The score of a pair does not depend on the items that are scored with it.
    users, items = np.array([5, 30]), np.array([[1099, 3], [600, 600]])
    pairs = ModelScorer(ensemble, n_items).score_pairs(
        torch.from_numpy(users), torch.from_numpy(items)
    )
    np.testing.assert_allclose(pairs.numpy(), expected[users[:, None], items], atol=2e-4)


def test_a_linear_change_of_the_scores_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ITEMS", 20)
    scores = np.random.default_rng(1).normal(size=(3, 90))
    plain, changed = (
        build_ensemble([standardised(table)], [1]) for table in (scores, 50 * scores + 7)
    )
    np.testing.assert_allclose(all_scores(plain, 3, 90), all_scores(changed, 3, 90), atol=1e-5)


def test_an_ensemble_ranks_alike_among_all_items_and_among_candidates() -> None:
    rng = np.random.default_rng(2)
    n_users, n_items = 50, 1100
    tables = [scale * rng.normal(size=(n_users, n_items)) for scale in (1, 100)]
    ensemble = build_ensemble([standardised(table) for table in tables], [0.5, 0.5])
    held_out = [(user, int(rng.integers(n_items))) for user in range(n_users)]
    others = [[item for item in range(n_items) if item != target] for _, target in held_out]
    train = [(user, (target + 1) % n_items) for user, target in held_out]
    data = make_interactions(n_users, n_items, train, held_out, candidates=others)
    assert data.held_out is not None
    scorer = scorer_of(ensemble, data)
    assert scorer.popular is not None
    expected = sum((table - table.mean(1)[:, None]) / table.std(1)[:, None] for table in tables)
    ranks = [(expected[user] > expected[user, target]).sum() for user, target in held_out]
    assert rank_among_candidates(scorer, data.held_out).tolist() == ranks
    # The seen item counts as worse, where it is better.
    seen_above = [
        expected[user, seen] > expected[user, target]
        for (user, seen), (_, target) in zip(train, held_out, strict=True)
    ]
    unseen = np.array(ranks) - seen_above
    assert rank_all(scorer, data.held_out, data.seen).tolist() == unseen.tolist()
    cut = np.minimum(unseen, 10).tolist()
    assert rank_all(scorer, data.held_out, data.seen, cutoff=10).tolist() == cut


def test_an_ensemble_has_no_log_loss() -> None:
    table = [[1, 2, 3, 4]]
    data = make_interactions(1, 4, [(0, 0)], [(0, 3)], negatives=[[1, 2]])
    config = replace_values(Config(), {"evaluation.k": [2], "data.split": "random"})
    single = evaluate(ModelScorer(model_of(table), 4), data, config)
    joined = evaluate(ModelScorer(build_ensemble([standardised(table)], [1]), 4), data, config)
    assert "log_loss" in single
    assert joined == {name: value for name, value in single.items() if name != "log_loss"}


def test_scores_that_are_not_finite_are_refused() -> None:
    with pytest.raises(FloatingPointError, match="scores: must be finite"):
        standardised([[1, np.inf]])
