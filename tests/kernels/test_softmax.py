"""The softmax over all unseen items: its loss and gradient are those of the plain version."""

import math

import pytest
import torch

from recsys.kernels.softmax import full_softmax_loss, plain_full_softmax_loss


def test_a_loss_by_hand() -> None:
    # The user likes item 0 (logit 1), has seen item 3, and not items 1 and 2 (logits 2 and 3).
    logits, zero = torch.tensor([[1.0, 2.0, 3.0, 5.0]]), torch.tensor([0])
    shift = torch.tensor([math.log(3 / 2)])  # three draws among two unseen items
    arguments = (logits, zero, zero, torch.tensor([0, 3]), shift)
    expected = math.log1p(3 * (math.exp(2) + math.exp(3)) / 2 / math.exp(1))
    for loss in (full_softmax_loss, plain_full_softmax_loss):
        assert loss(*arguments).tolist() == pytest.approx([expected], rel=1e-6)


def test_loss_and_gradient_equal_those_of_the_plain_version() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 6, dtype=torch.float64, generator=generator).mul_(3).requires_grad_()
    row, column = torch.tensor([0, 0, 2]), torch.tensor([1, 4, 0])
    excluded = torch.tensor([1, 4, 5, 12])
    shift = torch.tensor([0.5, 0.0, -1.0], dtype=torch.float64)
    losses, expected = (
        loss(logits, row, column, excluded, shift)
        for loss in (full_softmax_loss, plain_full_softmax_loss)
    )
    torch.testing.assert_close(losses, expected)
    weights = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    (gradient,), (expected_gradient,) = (
        torch.autograd.grad((weights * values).sum(), logits) for values in (losses, expected)
    )
    torch.testing.assert_close(gradient, expected_gradient)


def test_scores_far_apart_give_finite_gradients() -> None:
    # A seen item whose logit is higher by 500 rounds the weights of the unseen items to 0.
    logits = torch.tensor([[500.0, 0.0, 0.0]], requires_grad=True)
    zero = torch.tensor([0])
    loss = full_softmax_loss(logits, zero, zero, zero, torch.zeros(1))
    torch.autograd.backward(loss.sum())
    assert logits.grad is not None
    assert loss.tolist() == pytest.approx([0.0], abs=1e-30)
    assert torch.isfinite(logits.grad).all()
