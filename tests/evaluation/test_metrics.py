import math

import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn_metrics

from recsys.evaluation.metrics import auc, hit_rate, log_loss, mrr, ndcg, recall, standard_error


def test_one_held_out_item_by_hand() -> None:
    assert ndcg(torch.tensor([1]), k=10) == pytest.approx([1 / math.log2(3)])
    assert ndcg(np.array([0, 2, 10]), k=10) == pytest.approx([1, 0.5, 0])
    assert hit_rate(np.array([0, 9, 10, 11]), k=10).tolist() == [1, 1, 0, 0]
    assert mrr(np.array([0, 3, 10]), k=10) == pytest.approx([1, 1 / 4, 0])
    assert recall(np.array([0, 9, 10, 11]), k=10).tolist() == [1, 1, 0, 0]


def test_several_held_out_items_of_a_user_are_one_case() -> None:
    # User 7 has ranks 0, 2 and 5, user 9 has rank 1; cut at 3.
    ranks, user = np.array([5, 0, 1, 2]), np.array([7, 7, 9, 7])
    ideal = 1 + 1 / math.log2(3) + 1 / 2
    assert ndcg(ranks, 3, user) == pytest.approx([(1 + 1 / 2) / ideal, 1 / math.log2(3)])
    assert hit_rate(ranks, 3, user).tolist() == [1, 1]
    assert recall(ranks, 3, user) == pytest.approx([2 / 3, 1])
    assert mrr(ranks, 3, user) == pytest.approx([1, 1 / 2])
    assert mrr(ranks, 1, user) == pytest.approx([1, 0])


def test_more_held_out_items_than_k_can_still_be_perfect() -> None:
    ranks, user = np.arange(5), np.zeros(5, dtype=int)
    assert ndcg(ranks, 3, user) == pytest.approx([1.0])
    assert recall(ranks, 3, user) == pytest.approx([3 / 5])


def test_the_standard_error_of_three_users_by_hand() -> None:
    # The mean is 0.4, the variance (0.16 + 0.04 + 0.36) / 2 = 0.28.
    values = np.array([0.0, 0.2, 1.0])
    assert standard_error(values, np.array([3, 1, 2])) == pytest.approx(math.sqrt(0.28 / 3))


def test_values_of_one_user_count_as_one_observation() -> None:
    # The mean is 0.5; the sums of the deviations are 1.0, -0.5 and -0.5.
    values, user = np.array([1.0, 0.0, 1.0, 0.0]), np.array([4, 2, 4, 9])
    expected = math.sqrt(3 / 2 * (1.0**2 + 0.5**2 + 0.5**2)) / 4
    assert standard_error(values, user) == pytest.approx(expected)
    # Every value twice says no more.
    twice = standard_error(np.repeat(values, 2), np.repeat(user, 2))
    assert twice == pytest.approx(expected)


def test_one_user_has_no_standard_error() -> None:
    assert standard_error(np.array([0.0, 1.0]), np.array([5, 5])) is None


def test_the_standard_error_is_the_spread_of_the_means_of_samples() -> None:
    rng = np.random.default_rng(0)
    size = rng.integers(1, 6, 400)  # cases of each user, who is good or bad in all of them
    means, errors = [], []
    for _ in range(300):
        values = np.repeat(rng.random(400) < 0.3, size) * rng.random(size.sum())
        means.append(values.mean())
        error = standard_error(values, np.repeat(np.arange(400), size))
        assert error is not None
        errors.append(error)
    assert np.mean(errors) == pytest.approx(np.std(means), rel=0.15)


def test_ranking_metrics_equal_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(40, 30))
    relevant = np.zeros((40, 30), dtype=int)
    for row in relevant:
        row[rng.choice(30, rng.integers(1, 6), replace=False)] = 1
    user, item = np.nonzero(relevant)
    ranks = (scores[user] > scores[user, item][:, None]).sum(1)
    for k in (1, 5, 30):
        assert ndcg(ranks, k, user).mean() == pytest.approx(
            sklearn_metrics.ndcg_score(relevant, scores, k=k)
        )
    single = np.array([np.flatnonzero(row)[0] for row in relevant])
    ranks = (scores > scores[np.arange(40), single][:, None]).sum(1)
    expected = sklearn_metrics.top_k_accuracy_score(single, scores, k=5, labels=np.arange(30))
    assert hit_rate(ranks, 5).mean() == recall(ranks, 5).mean() == pytest.approx(expected)
    one_hot = np.eye(30, dtype=int)[single]
    assert mrr(ranks, 30).mean() == pytest.approx(
        sklearn_metrics.label_ranking_average_precision_score(one_hot, scores)
    )


def test_auc_by_hand_counts_ties_as_half() -> None:
    # Pairs: 2 > 1, 2 > 0, 1 = 1 (one half), 1 > 0.
    assert auc([2, 1, 1, 0], [1, 1, 0, 0]) == pytest.approx(3.5 / 4)


def test_labelled_metrics_equal_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 500)
    logits = np.round(rng.normal(size=500) + labels, 1)
    assert auc(logits, labels) == pytest.approx(sklearn_metrics.roc_auc_score(labels, logits))
    assert log_loss(logits, labels) == pytest.approx(
        sklearn_metrics.log_loss(labels, 1 / (1 + np.exp(-logits)))
    )


def test_log_loss_by_hand_and_of_large_logits() -> None:
    assert log_loss([0.0, math.log(3)], [1, 0]) == pytest.approx((math.log(2) + math.log(4)) / 2)
    assert log_loss([1000.0, -1000.0], [0, 1]) == pytest.approx(1000)


@pytest.mark.parametrize("ranks", [[], [[1]]])
def test_no_ranks_or_ranks_of_another_shape_are_refused(ranks: list[object]) -> None:
    with pytest.raises(ValueError, match="ranks must be one-dimensional"):
        ndcg(np.array(ranks), 10)


def test_auc_without_a_negative_is_refused() -> None:
    with pytest.raises(ValueError, match="positives and negatives, but got 2 and 0"):
        auc([1, 2], [1, 1])
