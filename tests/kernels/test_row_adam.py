"""Row-wise Adam: missed steps in closed form equal Adam's steps one by one."""

import pytest
import torch

from recsys.kernels.row_adam import WINDOW, MissedSteps, PlainMissedSteps, find_unique


@pytest.mark.parametrize("shape", [(6,), (6, 3)], ids=["biases", "embedding"])
@pytest.mark.parametrize(("start", "n_steps"), [(1, 5), (1, 40), (700, WINDOW + 50)])
def test_missed_steps_equal_those_of_the_plain_version(
    start: int, n_steps: int, shape: tuple[int, ...]
) -> None:
    generator = torch.Generator().manual_seed(0)
    weight, moment = (
        torch.randn(shape, generator=generator),
        torch.randn(shape, generator=generator),
    )
    square = moment.square() * 0.3 + 1e-3
    last = torch.tensor([0, 1, 2, n_steps // 2, n_steps - 1, n_steps])
    found = weight.clone(), moment.clone(), square.clone()
    expected = weight.double(), moment.double(), square.double()
    missed, plain = MissedSteps(start), PlainMissedSteps(start)
    for step in range(n_steps):
        learning_rate = 0.05 if step < 3 else 0.01
        missed.advance(learning_rate)
        plain.advance(learning_rate)
    missed.catch_up(*found, last)
    plain.catch_up(*expected, last)
    for tensor, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(tensor.double(), wanted, rtol=1e-4, atol=1e-6)
    assert torch.equal(found[0][5], weight[5])
    assert not torch.allclose(found[0][0], weight[0])


def test_a_restart_counts_from_the_new_step() -> None:
    missed, fresh = MissedSteps(1), MissedSteps(4)
    for _ in range(3):
        missed.advance(0.1)
    missed.restart(4)
    found, expected = torch.ones(3, 2, 3), torch.ones(3, 2, 3)
    for steps, rows in ((missed, found), (fresh, expected)):
        steps.advance(0.02)
        steps.catch_up(rows[0], rows[1], rows[2], torch.tensor([0, 1]))
    assert torch.equal(found, expected)
    assert not torch.equal(found, torch.ones(3, 2, 3))


def test_a_missed_step_by_hand() -> None:
    # One step with gradient 1 (m = 0.1, v = 0.001), then one without: m = 0.09, v = 0.000999.
    moved = 0.1 * (0.09 / (1 - 0.9**2)) / (0.000999 / (1 - 0.999**2)) ** 0.5
    for steps in (MissedSteps(1), PlainMissedSteps(1)):
        weight, moment, square = torch.ones(1), torch.full((1,), 0.1), torch.full((1,), 0.001)
        steps.advance(0.1)
        steps.catch_up(weight, moment, square, torch.tensor([0]))
        assert weight.item() == pytest.approx(1 - moved, rel=1e-5)
        assert moment.item() == pytest.approx(0.09)
        assert square.item() == pytest.approx(0.000999)


@pytest.mark.parametrize("ids", [[], [4], [2, 2, 2], [5, 0, 5, 3, 0, 9]], ids=str)
def test_unique_ids_equal_those_of_torch(ids: list[int]) -> None:
    flat = torch.tensor(ids, dtype=torch.int64)
    unique, positions = find_unique(flat, torch.empty(10, dtype=torch.int64))
    assert torch.equal(unique.sort().values, torch.unique(flat))
    assert torch.equal(unique[positions], flat)
