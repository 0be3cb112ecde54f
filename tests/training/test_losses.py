import math

import pytest
import torch

from recsys.config.sections import ModelConfig, TrainingConfig
from recsys.models import Side, build_model
from recsys.training.losses import (
    bce,
    bpr,
    explicit_negative_bce,
    l2_penalty,
    logits_of,
    row_loss_of,
    softmax,
)

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 0.0, 0.0]])


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def test_bce_sums_over_a_row() -> None:
    assert bce(LOGITS).tolist() == pytest.approx(
        [softplus(-2) + softplus(-1) + softplus(0.5), 3 * math.log(2)], rel=1e-6
    )


def test_balance_weighs_the_positive_as_its_negatives_for_bce_alone() -> None:
    balanced = row_loss_of(TrainingConfig(balance=True, n_negatives=2))
    assert balanced(LOGITS)[0].item() == pytest.approx(
        2 * softplus(-2) + softplus(-1) + softplus(0.5), rel=1e-6
    )
    assert row_loss_of(TrainingConfig(loss="bpr", balance=True)) is bpr
    assert row_loss_of(TrainingConfig(loss="softmax")) is softmax


def test_bpr_sums_over_the_negatives() -> None:
    assert bpr(LOGITS).tolist() == pytest.approx(
        [softplus(-3) + softplus(-1.5), 2 * math.log(2)], rel=1e-6
    )


def test_softmax_is_the_cross_entropy_of_the_positive() -> None:
    total = math.exp(2) + math.exp(-1) + math.exp(0.5)
    assert softmax(LOGITS).tolist() == pytest.approx(
        [-math.log(math.exp(2) / total), math.log(3)], rel=1e-6
    )


@pytest.mark.parametrize(("similarity", "divisor"), [("dot", 1.0), ("cosine", 0.25)])
def test_cosines_alone_are_divided_by_the_temperature(similarity: str, divisor: float) -> None:
    config = ModelConfig.model_validate({"name": "inner_product", "similarity": similarity})
    model = build_model(config, 1, 1, torch.Generator())
    training = TrainingConfig(loss="softmax", temperature=0.25)
    assert torch.equal(logits_of(model, LOGITS, training), LOGITS / divisor)


def test_an_explicit_negative_has_label_zero() -> None:
    assert explicit_negative_bce(torch.tensor([[3.0], [-3.0]])).tolist() == pytest.approx(
        [softplus(3), softplus(-3)], rel=1e-6
    )


def test_l2_is_a_mean_over_items_and_a_sum_over_embeddings() -> None:
    user = Side((torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0]])), (), torch.tensor([100.0]))
    item = Side(
        (torch.tensor([[[1.0, 1.0], [3.0, 0.0]]]), torch.tensor([[[2.0], [4.0]]])),
        (),
        torch.tensor([[100.0, 100.0]]),
    )
    assert l2_penalty(user, item).tolist() == pytest.approx([(5 + 9) + (2 + 9) / 2 + (4 + 16) / 2])
