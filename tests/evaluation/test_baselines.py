import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from recsys.config.schema import Config
from recsys.data.interactions import HeldOut, Interactions
from recsys.data.negatives import index_pairs
from recsys.evaluation import baselines
from recsys.evaluation.baselines import EASE, Popularity, score_baselines
from recsys.evaluation.metrics import hit_rate, ndcg
from recsys.evaluation.ranking import rank_among_candidates
from tests.training.small_data import hold_out_users, make_interactions, two_tastes


def dense(data: Interactions) -> np.ndarray:
    matrix = np.zeros((data.n_users, data.n_items))
    matrix[data.user, data.item] = 1
    return matrix


def test_popularity_scores_an_item_by_its_count() -> None:
    scorer = Popularity(np.array([0, 2, 0, 1]))
    assert scorer.score_all(torch.tensor([0, 2])).tolist() == [[0, 2, 0, 1]] * 2
    assert scorer.score_pairs(torch.tensor([0]), torch.tensor([[3, 1]])).tolist() == [[1, 2]]


@pytest.mark.parametrize("shape", [(60, 40), (30, 44)])
def test_ease_is_the_closed_form_by_items_and_by_users(shape: tuple[int, int]) -> None:
    data = two_tastes(*shape)
    matrix = dense(data)
    inverse = np.linalg.inv(matrix.T @ matrix + 7 * np.eye(shape[1]))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    scorer = EASE(data, 7)
    user = torch.tensor([5, 0, 29])
    np.testing.assert_allclose(
        scorer.score_all(user).numpy(), (matrix @ weights)[user.numpy()], atol=1e-5
    )
    item = torch.tensor([[3, 4], [0, 1], [9, 9]])
    torch.testing.assert_close(
        scorer.score_pairs(user, item), scorer.score_all(user).gather(1, item)
    )


@pytest.mark.parametrize("shape", [(60, 40), (30, 44)])
def test_ease_scores_users_who_are_held_out_whole_by_their_given_items(
    shape: tuple[int, int],
) -> None:
    n_users, n_items = shape
    data = hold_out_users(two_tastes(*shape), [4, 7, n_users - 1])
    matrix = dense(data)  # without those users
    assert not matrix[[4, 7, n_users - 1]].any()
    inverse = np.linalg.inv(matrix.T @ matrix + 7 * np.eye(n_items))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    known = matrix + dense(data.histories()) * (matrix.sum(1, keepdims=True) == 0)
    user = torch.tensor([4, 0, 7, n_users - 1, 9])
    found = EASE(data, 7).score_all(user).numpy()
    np.testing.assert_allclose(found, (known @ weights)[user.numpy()], atol=1e-5)
    assert np.abs(found[0]).max() > 0.1


def test_popularity_does_not_count_users_who_are_held_out_whole() -> None:
    data = hold_out_users(make_interactions(3, 4, [(0, 1), (1, 2), (1, 3)], [(1, 0)]), [1])
    assert baselines.popularity_of(data).counts.tolist() == [0, 1, 0, 0]


def test_ease_learns_two_tastes_and_popularity_does_not() -> None:
    scores = score_baselines(two_tastes(), Config.model_validate({"evaluation": {"k": [12]}}))
    assert float(scores["ease"]["hit_rate_at_12"]) > 0.9
    assert float(scores["popularity"]["hit_rate_at_12"]) < 0.6


def test_popularity_counts_training_positives_and_with_times_the_recent_ones() -> None:
    train = [(0, 1), (1, 1), (2, 3)]
    low = [(0, 0), (1, 0), (2, 0)]  # which do not count
    data = make_interactions(3, 4, train, [(0, 3), (1, 3), (2, 1)], low=low)
    config = Config.model_validate({"evaluation": {"k": [1]}})
    # Among the unseen items, user 0 and user 1 get item 3 and user 2 item 1.
    assert score_baselines(data, config)["popularity"]["hit_rate_at_1"] == 1
    assert "popularity_recent" not in score_baselines(data, config)
    # Of late, item 2 is first.
    recent = dataclasses.replace(data, n_recent=np.array([0, 0, 2, 1]))
    assert score_baselines(recent, config)["popularity_recent"]["hit_rate_at_1"] == 0
    assert score_baselines(recent, config)["popularity"]["hit_rate_at_1"] == 1


def test_ease_beyond_its_limit_is_skipped_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "EASE_LIMIT", 39)
    scores = score_baselines(two_tastes(), Config())
    assert scores["ease"] == {
        "skipped": "EASE: must have at most 39 users or items, but got 40. "
        "Compare with popularity alone."
    }
    assert "ndcg_at_10" in scores["popularity"]


@pytest.mark.skipif(
    "RECSYS_ML_1M_NCF" not in os.environ,
    reason="RECSYS_ML_1M_NCF does not name a folder with the split of the NCF paper",
)
def test_ease_reaches_its_published_value_on_the_split_of_the_ncf_paper() -> None:
    folder = Path(os.environ["RECSYS_ML_1M_NCF"])
    train = np.loadtxt(folder / "ml-1m.train.rating", dtype=np.int64, usecols=(0, 1))
    test = np.loadtxt(folder / "ml-1m.test.rating", dtype=np.int32, usecols=(0, 1))
    rows = (folder / "ml-1m.test.negative").read_text().splitlines()
    candidates = np.array([row.split("\t")[1:] for row in rows], dtype=np.int32)
    seen = index_pairs(train[:, 0], train[:, 1], 6040, 3706)
    none = np.zeros(0, dtype=np.int32)
    held_out = HeldOut(test[:, 0], test[:, 1], none, none, None, candidates)
    data = Interactions(6040, 3706, seen.users(), seen.items, None, none, none, seen, held_out)
    ranks = rank_among_candidates(EASE(data, 1320), held_out)
    assert hit_rate(ranks, 10).mean() == pytest.approx(0.7192, abs=5e-5)
    assert ndcg(ranks, 10).mean() == pytest.approx(0.4494, abs=5e-5)
