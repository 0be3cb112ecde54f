"""Adam's moments, and its step by torch's fused kernel.

Stands between `optimiser` and torch. The class `torch.optim.Adam` imports torch's compiler when the first one is made: 0.9 s and
66 MB of every worker, for nothing.
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
    """The state of a training by Adam.

    `moments`: of each parameter `step` () and, of the parameter's shape, `exp_avg` and `exp_avg_sq`. `learning_rate`: of the next
    step.
    """

    moments: dict[nn.Parameter, dict[str, Tensor]]
    learning_rate: float

    @classmethod
    def start(cls, model: nn.Module, learning_rate: float) -> Self:
        """Every moment in place, all 0."""
        return cls({weight: _at_rest(weight) for weight in model.parameters()}, learning_rate)

    def zero_grad(self) -> None:
        """Forget all gradients."""
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
        assert len(gradients) == len(weights)  # else they would be another parameter's
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


def _at_rest(weight: nn.Parameter) -> dict[str, Tensor]:
    zeros = {name: torch.zeros_like(weight.data) for name in ("exp_avg", "exp_avg_sq")}
    return {"step": torch.zeros((), device=weight.device)} | zeros
