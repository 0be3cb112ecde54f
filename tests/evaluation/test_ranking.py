import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from recsys.config.components import MODELS
from recsys.config.sections import ModelConfig
from recsys.data.interactions import Interactions
from recsys.data.negatives import index_pairs
from recsys.evaluation import ranking
from recsys.evaluation.metrics import hit_rate
from recsys.evaluation.ranking import ModelScorer, rank_all, rank_among_candidates, top_items
from recsys.models import build_model
from tests.training.small_data import make_interactions


class FixedScores:
    """Scorer of given scores, one row per user."""

    def __init__(self, scores: npt.ArrayLike) -> None:
        self.device = torch.device("cpu")
        self.scores = torch.as_tensor(np.asarray(scores, dtype=np.float32))

    def score_all(self, user: Tensor) -> Tensor:
        return self.scores[user]

    def score_pairs(self, user: Tensor, item: Tensor) -> Tensor:
        return self.scores[user].gather(1, item)


def ranks_of(scorer: ranking.Scorer, data: Interactions) -> list[int]:
    assert data.held_out is not None
    ranks: list[int] = rank_all(scorer, data.held_out, data.seen).tolist()
    return ranks


def test_a_rank_counts_better_unseen_items() -> None:
    scores = [[5, 9, 1, 3, 7], [1, 2, 3, 4, 5]]
    # User 0 has seen items 1 and 4, a low rating. Of 0, 2 and 3, item 0 is the best and 3 the next.
    data = make_interactions(2, 5, [(0, 1), (1, 4)], [(0, 0), (0, 3), (1, 0)], low=[(0, 4)])
    assert ranks_of(FixedScores(scores), data) == [0, 1, 3]


def test_the_other_held_out_items_of_a_user_are_ranked_too() -> None:
    data = make_interactions(1, 4, [(0, 3)], [(0, 0), (0, 1), (0, 2)])
    assert ranks_of(FixedScores([[2, 3, 1, 9]]), data) == [1, 0, 2]


def test_a_seen_item_ranks_behind_all_unseen_ones() -> None:
    data = make_interactions(1, 4, [(0, 1)], [(0, 1)])
    assert ranks_of(FixedScores([[1, 9, 2, 3]]), data) == [3]


def test_ranks_over_many_blocks_equal_those_counted_one_by_one() -> None:
    rng = np.random.default_rng(0)
    n_users, n_items = 75, 40
    scores = rng.normal(size=(n_users, n_items))
    train, held_out = [], []
    for user in range(0, n_users, 2):
        items = rng.permutation(n_items)
        train += [(user, int(item)) for item in items[:6]]
        held_out += [(user, int(item)) for item in items[6 : 7 + user % 5]]
    data = make_interactions(n_users, n_items, train, held_out)
    masked = scores.astype(np.float32)
    masked[tuple(np.array(train).T)] = -np.inf
    expected = [int((masked[user] > masked[user, item]).sum()) for user, item in sorted(held_out)]
    assert ranks_of(FixedScores(scores), data) == expected


@pytest.mark.parametrize("name", MODELS)
def test_scores_of_all_items_equal_scores_of_pairs(name: str) -> None:
    n_items = 2 * ranking.ITEM_BLOCK["cpu"] + 3
    config = ModelConfig.model_validate({"name": name, "init_std": 1.0})
    model = build_model(config, 4, n_items, torch.Generator().manual_seed(0))
    scorer = ModelScorer(model, n_items)
    user = torch.tensor([3, 1])
    pairs = scorer.score_pairs(user, torch.arange(n_items).expand(2, -1))
    torch.testing.assert_close(scorer.score_all(user), pairs)
    torch.testing.assert_close(scorer.score_all(user[:1]), pairs[:1])


def test_a_constant_scorer_ranks_as_chance_does_and_each_time_alike() -> None:
    n_users, n_items = 3000, 50
    held_out = [(user, user % 7) for user in range(n_users)]
    data = make_interactions(n_users, n_items, [(user, 49) for user in range(n_users)], held_out)
    ranks = ranks_of(FixedScores(np.zeros((n_users, n_items))), data)
    assert hit_rate(ranks, 10) == pytest.approx(10 / 49, abs=0.025)
    assert np.mean(ranks) == pytest.approx(24, abs=1)
    assert ranks == ranks_of(FixedScores(np.ones((n_users, n_items))), data)


def test_tied_held_out_items_of_a_user_get_different_ranks() -> None:
    data = make_interactions(1, 6, [(0, 5)], [(0, item) for item in range(5)])
    assert sorted(ranks_of(FixedScores([[1, 1, 1, 1, 1, 1]]), data)) == [0, 1, 2, 3, 4]


def test_ties_are_ordered_at_random_among_themselves_alone() -> None:
    rows = [[3, 2, 2, 2, 1]] * 200
    data = make_interactions(200, 5, [], [(user, 1) for user in range(200)])
    counts = np.bincount(ranks_of(FixedScores(rows), data), minlength=5)
    assert counts[0] == counts[4] == 0
    assert counts[1:4].min() > 40


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_score_that_is_not_finite_raises_an_error(value: float) -> None:
    data = make_interactions(1, 3, [], [(0, 1)], candidates=[[0, 2]])
    scorer = FixedScores([[value, 1, 2]])
    assert data.held_out is not None
    with pytest.raises(FloatingPointError, match="scores: must be finite"):
        rank_all(scorer, data.held_out, data.seen)
    with pytest.raises(FloatingPointError, match="scores: must be finite"):
        rank_among_candidates(scorer, data.held_out)


def test_a_rank_counts_better_candidates_except_minus_one() -> None:
    scores = [[9, 5, 6, 7, 1], [1, 2, 3, 4, 5]]
    data = make_interactions(
        2, 5, [], [(0, 1), (0, 3), (1, 0)], candidates=[[2, 4, -1], [2, 4, 1], [1, -1, -1]]
    )
    assert data.held_out is not None
    assert rank_among_candidates(FixedScores(scores), data.held_out).tolist() == [1, 0, 1]


def test_tied_candidates_rank_as_chance_does() -> None:
    n_users = 4000
    candidates = np.tile(np.arange(1, 20), (n_users, 1))
    data = make_interactions(
        n_users, 20, [], [(user, 0) for user in range(n_users)], candidates=candidates
    )
    assert data.held_out is not None
    ranks = rank_among_candidates(FixedScores(np.zeros((n_users, 20))), data.held_out)
    assert hit_rate(ranks, 5) == pytest.approx(5 / 20, abs=0.025)


def test_top_items_are_unseen_best_first_and_agree_with_the_ranks() -> None:
    scores = [[5, 9, 1, 3, 7], [2, 2, 2, 2, 2]]
    data = make_interactions(2, 5, [(0, 1), (1, 4)], [(1, item) for item in range(4)])
    (first, items, values), (second, tied, _) = top_items(
        FixedScores(scores), np.array([0, 1]), data.seen, 3
    )
    assert (first, items.tolist(), values.tolist()) == (0, [4, 0, 3], [7, 5, 3])
    ranks = ranks_of(FixedScores(scores), data)
    assert second == 1
    assert [ranks[item] for item in tied] == [0, 1, 2]


def test_top_items_are_fewer_where_fewer_are_unseen() -> None:
    seen = index_pairs(np.array([0, 0]), np.array([0, 2]), 1, 3)
    ((_, items, _),) = top_items(FixedScores([[1, 2, 3]]), np.array([0]), seen, 10)
    assert items.tolist() == [1]
