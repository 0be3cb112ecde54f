import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from recsys.config.components import MODELS
from recsys.config.sections import ModelConfig
from recsys.data.interactions import Interactions
from recsys.data.negatives import index_pairs
from recsys.errors import DivergenceError
from recsys.evaluation import scorers
from recsys.evaluation.metrics import hit_rate
from recsys.evaluation.ranking import rank_all, rank_among_candidates
from recsys.evaluation.scorers import ModelScorer, Scorer, popular_items
from recsys.evaluation.top_items import top_items
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


def ranks_of(scorer: Scorer, data: Interactions) -> list[int]:
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
    n_items = 2 * scorers.ITEM_BLOCK["cpu"] + 3
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
    assert hit_rate(ranks, 10).mean() == pytest.approx(10 / 49, abs=0.025)
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
    assert hit_rate(ranks, 5).mean() == pytest.approx(5 / 20, abs=0.025)


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


def random_data(rng: np.random.Generator, n_users: int, n_items: int) -> Interactions:
    """Users with 0 to 12 seen items, popular ones first, and 1 to 3 held-out items each."""
    weights = 1 / (1 + np.arange(n_items))
    train, held_out = [], []
    for user in range(n_users):
        items = rng.choice(n_items, 15, replace=False, p=weights / weights.sum()).tolist()
        n_held, n_seen = rng.integers(1, 4), rng.integers(0, 13)
        held_out += [(user, item) for item in items[:n_held]]
        train += [(user, item) for item in items[3 : 3 + n_seen]]
    return make_interactions(n_users, n_items, train, held_out)


@pytest.mark.parametrize("std", [0.0, 0.3], ids=["all scores equal", "random scores"])
@pytest.mark.parametrize("cutoff", [1, 10, 40])
@pytest.mark.parametrize("name", MODELS)
def test_ranks_below_the_cutoff_are_exact(
    name: str, cutoff: int, std: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scorers, "MIN_HEAD", 20)  # less than the largest cutoff
    rng, n_users, n_items = np.random.default_rng(0), 150, 400
    data = random_data(rng, n_users, n_items)
    config = ModelConfig.model_validate({"name": name, "init_std": max(std, 1e-9)})
    model = build_model(config, n_users, n_items, torch.Generator().manual_seed(0))
    # Popular items score higher, as in a trained model.
    (biases,) = (name for name in model.row_parameters("item") if name.endswith("biases.item"))
    model.get_parameter(biases).data.copy_(torch.from_numpy(3 / (1 + np.arange(n_items))))
    if std == 0:
        for parameter in model.parameters():
            parameter.data.zero_()
    assert data.held_out is not None
    exact = rank_all(ModelScorer(model, n_items), data.held_out, data.seen)
    popular = popular_items(data.item, n_items)
    assert popular is not None
    scorer = ModelScorer(model, n_items, popular)
    found = rank_all(scorer, data.held_out, data.seen, cutoff)
    assert found.tolist() == np.minimum(exact, cutoff).tolist()
    assert std == 0 or 0 < (exact < cutoff).sum() < len(exact)


def test_only_users_who_may_have_a_hit_are_scored_on_all_items(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scorers, "MIN_HEAD", 2)
    # Scores are the item's number. User 0 has seen the two best items of the head, 7 and 6.
    train = [(0, 7), (0, 6), (1, 6), (2, 7)]
    data = make_interactions(3, 8, train, [(0, 5), (1, 0), (2, 6)])
    model = build_model(ModelConfig(name="inner_product"), 3, 8, torch.Generator())
    model.get_parameter("biases.item").data.copy_(torch.arange(8.0))
    scorer = ModelScorer(model, 8, np.array([7, 6]))
    asked: list[int] = []
    score_all = scorer.score_all

    def note_users(user: Tensor) -> Tensor:
        asked.extend(user.tolist())
        return score_all(user)

    monkeypatch.setattr(scorer, "score_all", note_users)
    assert data.held_out is not None
    # Of user 1's head, item 7 is unseen and better than item 0; user 2's item is its best one.
    assert rank_all(scorer, data.held_out, data.seen, 1).tolist() == [0, 1, 0]
    assert asked == [0, 2]


def test_the_head_is_the_most_popular_items(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scorers, "MIN_HEAD", 2)
    item = np.array([5, 5, 3, 3, 3, 0])
    assert popular_items(item, 8) is not None
    assert popular_items(item, 8).tolist() == [3, 5]  # type: ignore[union-attr]
    assert popular_items(item, 7) is None  # a head of 2 is more than a quarter


def test_a_weight_that_is_not_finite_is_found_beyond_the_head() -> None:
    model = build_model(ModelConfig(name="inner_product"), 3, 8, torch.Generator())
    model.get_parameter("items.weight").data[2] = torch.nan
    with pytest.raises(DivergenceError, match=r"^scores: must be finite, but got a sum of nan"):
        ModelScorer(model, 8, np.array([7, 6]))
