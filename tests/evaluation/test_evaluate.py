import math

import numpy as np
import pytest

from recsys.config.schema import Config
from recsys.config.sections import ModelConfig
from recsys.data.interactions import Interactions
from recsys.evaluation.evaluate import evaluate, sample_users, score_labelled
from recsys.evaluation.metrics import log_loss
from recsys.evaluation.scorers import ModelScorer
from recsys.models import build_model
from recsys.training.segments import generator_of
from tests.evaluation.test_ranking import FixedScores
from tests.training.small_data import make_interactions, two_tastes

SCORES = [[5, 9, 1, 3, 7], [1, 2, 3, 4, 5]]


def config(**evaluation: object) -> Config:
    return Config.model_validate({"evaluation": evaluation})


def labelled() -> Interactions:
    return make_interactions(
        2,
        5,
        [(0, 1), (1, 4)],
        [(0, 0), (0, 3), (1, 3)],
        held_out_low=[(1, 2)],
        negatives=[[2, 4], [4, 2], [0, 1]],
    )


def test_a_user_is_a_case_under_the_full_protocol() -> None:
    # User 0 has seen 1; ranks 1 (item 0 behind 4) and 2 (item 3). User 1 has seen 4; rank 0.
    values = evaluate(FixedScores(SCORES), labelled(), config(k=[2, 3]))
    assert values["hit_rate_at_2"] == 1.0
    assert values["recall_at_2"] == pytest.approx((1 / 2 + 1) / 2)
    assert values["mrr_at_3"] == pytest.approx((1 / 2 + 1) / 2)
    gains = 1 / math.log2(3) + 1 / 2
    ndcg = gains / (1 + 1 / math.log2(3)), 1
    assert values["ndcg_at_3"] == pytest.approx(sum(ndcg) / 2)
    # The searched metric is NDCG at the first k: user 0 has 1/log2(3) of 1 + 1/log2(3), user 1 all.
    first = (1 / math.log2(3)) / (1 + 1 / math.log2(3))
    assert values["ndcg_at_2_se"] == pytest.approx((1 - first) / 2)
    assert [name for name in values if name.endswith("_se")] == ["ndcg_at_2_se"]


def test_a_held_out_item_is_a_case_under_the_sampled_protocol() -> None:
    data = make_interactions(
        2, 5, [(0, 1)], [(0, 0), (0, 3), (1, 3)], candidates=[[2, 3], [4, 0], [0, -1]]
    )
    values = evaluate(FixedScores(SCORES), data, config(k=[1], protocol="sampled", n_candidates=2))
    # User 0 has two hits and user 1 none: the scores of the items 0, 3 and 3 are 5, 3 and 4.
    assert values["hit_rate_at_1"] == pytest.approx(2 / 3)
    # The sums of the deviations of user 0 and user 1 are 1/3 and -1/3.
    assert values["ndcg_at_1_se"] == pytest.approx(math.sqrt(2 * (1 / 9 + 1 / 9)) / 3)


def test_labelled_pairs_are_positives_their_negatives_and_low_ratings() -> None:
    data = labelled()
    assert data.held_out is not None
    scores, labels = score_labelled(FixedScores(SCORES), data.held_out)
    assert scores.tolist() == [5, 3, 4, 1, 7, 7, 1, 1, 2, 3]
    assert labels.tolist() == [True] * 3 + [False] * 7
    # Of 7 negatives, 5 and 4 are above five each; 3 is above four and ties with one.
    values = evaluate(FixedScores(SCORES), data, config())
    assert values["auc"] == pytest.approx((5 + 5 + 4.5) / 21)
    assert "log_loss" not in values


def test_a_models_logits_have_a_log_loss() -> None:
    model = build_model(ModelConfig(init_std=1.0), 2, 5, generator_of(0, 0, 0, "cpu"))
    data = labelled()
    assert data.held_out is not None
    scorer = ModelScorer(model, 5)
    assert evaluate(scorer, data, config())["log_loss"] == log_loss(
        *score_labelled(scorer, data.held_out)
    )


def test_cosines_have_no_log_loss() -> None:
    cosine = ModelConfig(name="inner_product", similarity="cosine")
    scorer = ModelScorer(build_model(cosine, 2, 5, generator_of(0, 0, 0, "cpu")), 5)
    values = evaluate(scorer, labelled(), config())
    assert "auc" in values
    assert "log_loss" not in values


def test_data_without_labelled_pairs_have_only_ranking_metrics() -> None:
    values = evaluate(FixedScores(np.ones((60, 40))), two_tastes(), config())
    ranking = {"ndcg_at_10", "hit_rate_at_10", "mrr_at_10", "recall_at_10"}
    assert set(values) == {*ranking, "ndcg_at_10_se"}


def test_data_that_cannot_be_ranked_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one held-out positive, but got 0"):
        evaluate(FixedScores(SCORES), make_interactions(2, 5, [(0, 1)], []), config())
    with pytest.raises(
        ValueError, match=r"evaluation\.protocol: must be full for data without candidates"
    ):
        evaluate(FixedScores(SCORES), labelled(), config(protocol="sampled"))


def test_a_sample_has_all_rows_of_its_users_and_depends_on_the_seed() -> None:
    data = make_interactions(
        4,
        5,
        [],
        [(user, item) for user in range(4) for item in (0, 1)],
        held_out_low=[(user, 3) for user in range(4)],
        negatives=[[user] for user in range(4) for _ in range(2)],
        candidates=[[user] for user in range(4) for _ in range(2)],
    )
    assert data.held_out is not None
    sample = sample_users(data.held_out, 2, 0)
    users = sorted(set(sample.user.tolist()))
    assert len(users) == 2
    assert sample.user.tolist() == [user for user in users for _ in range(2)]
    assert sample.item.tolist() == [0, 1, 0, 1]
    assert sample.low_user.tolist() == users
    assert sample.negatives is not None
    assert sample.candidates is not None
    assert (
        sample.negatives[:, 0].tolist() == sample.candidates[:, 0].tolist() == sample.user.tolist()
    )
    assert sample_users(data.held_out, 2, 0).user.tolist() == sample.user.tolist()
    assert (
        len({tuple(sample_users(data.held_out, 2, seed).user.tolist()) for seed in range(10)}) > 1
    )
    assert sample_users(data.held_out, 4, 0) is data.held_out
