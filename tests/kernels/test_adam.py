import subprocess
import sys
from pathlib import Path

import torch
from torch import nn

from recsys.kernels.adam import Adam

NO_COMPILER = """
import sys
from recsys.config.schema import Config, replace_values
from recsys.training.fit import fit
from tests.training.small_data import two_tastes

for model in ("neumf", "inner_product"):
    config = replace_values(Config(), {"model.name": model, "training.max_epochs": 1})
    list(fit(config, two_tastes(), 0))
print([name for name in ("torch._dynamo", "torch._inductor", "sympy") if name in sys.modules])
"""


def test_a_step_is_that_of_torchs_adam() -> None:
    ours, theirs = nn.Linear(3, 2), nn.Linear(3, 2)
    theirs.load_state_dict(ours.state_dict())
    adam, reference = (
        Adam.start(ours, 0.05),
        torch.optim.Adam(theirs.parameters(), lr=0.05, fused=True),
    )
    batches = torch.randn(20, 5, 3, generator=torch.Generator().manual_seed(0))
    for step, batch in enumerate(batches):
        if step == 10:
            adam.learning_rate = reference.param_groups[0]["lr"] = 0.01
        adam.zero_grad()
        reference.zero_grad()
        for model in (ours, theirs):
            torch.autograd.backward(model(batch).square().sum())
        adam.step()
        reference.step()
    for weight, expected in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(weight, expected)
        for name in ("step", "exp_avg", "exp_avg_sq"):
            assert torch.equal(adam.moments[weight][name], reference.state[expected][name])


def test_the_first_step_by_hand_and_none_without_a_gradient() -> None:
    moved, left = nn.Parameter(torch.tensor([1.0, -2.0])), nn.Parameter(torch.tensor([3.0]))
    adam = Adam(
        {
            p: {
                "step": torch.zeros(()),
                "exp_avg": torch.zeros_like(p),
                "exp_avg_sq": torch.zeros_like(p),
            }
            for p in (moved, left)
        },
        0.1,
    )
    moved.grad = torch.tensor([4.0, -0.5])
    adam.step()
    # The first step is the learning rate times the gradient's sign.
    torch.testing.assert_close(moved.data, torch.tensor([0.9, -1.9]))
    torch.testing.assert_close(adam.moments[moved]["exp_avg"], torch.tensor([0.4, -0.05]))
    torch.testing.assert_close(adam.moments[moved]["exp_avg_sq"], torch.tensor([0.016, 0.00025]))
    assert (left.item(), int(adam.moments[left]["step"])) == (3.0, 0)


def test_training_does_not_import_torchs_compiler() -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", NO_COMPILER], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.stdout == "[]\n", done.stderr
