"""Adam's moments, and its step by torch's fused kernel.

Called by `training.optimiser`. It replaces the class `torch.optim.Adam`, which its test compares it
with: that class imports torch's compiler, which costs each worker 0.9 s and 66 MB.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn
from torch.optim.adam import adam

BETA1, BETA2, EPS = 0.9, 0.999, 1e-8
"""Source: Kingma and Ba 2015, arXiv:1412.6980, alg. 1."""


@dataclass
class Adam:
    """State of a training by Adam.

    `moments`: by parameter, `step` () and, of the parameter's shape, `exp_avg` and `exp_avg_sq`.
    `learning_rate`: of the next step.
    """

    moments: dict[nn.Parameter, dict[str, Tensor]]
    learning_rate: float

    @classmethod
    def start(cls, model: nn.Module, learning_rate: float) -> Self:
        """Return the state before the first step: all moments 0."""
        return cls({weight: _zeros(weight) for weight in model.parameters()}, learning_rate)

    @property
    def n_steps(self) -> int:
        """Steps so far, of the parameter that has had the most."""
        return max(int(state["step"]) for state in self.moments.values())

    def zero_grad(self) -> None:
        """Set all gradients to None."""
        for weight in self.moments:
            weight.grad = None

    def step(self) -> None:
        """Update the parameters that have a gradient, and their moments."""
        weights = [weight for weight in self.moments if weight.grad is not None]
        self.update(weights, [self.moments[weight] for weight in weights])

    def update(self, weights: Sequence[nn.Parameter], moments: Sequence[dict[str, Tensor]]) -> None:
        """Update parameters, each with a gradient, and moments of their shapes, all in place."""
        if not weights:
            return
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        assert len(gradients) == len(weights)  # or a parameter would get another one's gradient
        adam(
            [weight.data for weight in weights],
            gradients,
            [state["exp_avg"] for state in moments],
            [state["exp_avg_sq"] for state in moments],
            [],
            [state["step"] for state in moments],
            fused=True,
            amsgrad=False,
            maximize=False,
            beta1=BETA1,
            beta2=BETA2,
            lr=self.learning_rate,
            weight_decay=0.0,
            eps=EPS,
        )


def _zeros(weight: nn.Parameter) -> dict[str, Tensor]:
    zeros = {name: torch.zeros_like(weight.data) for name in ("exp_avg", "exp_avg_sq")}
    return {"step": torch.zeros((), device=weight.device)} | zeros
