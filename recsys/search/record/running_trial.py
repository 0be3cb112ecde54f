"""A trial that this process has started, and the plan of its epochs, for the record."""

from dataclasses import dataclass, field
from typing import NamedTuple, Self

import numpy as np
import optuna
from optuna.trial import FrozenTrial

from recsys.config.schema import Config
from recsys.search.record.summaries import PLANNED_EPOCHS, proposed_params_of


class EpochPlan(NamedTuple):
    """Epochs that a trial was planned with, and those that it was proposed with."""

    epochs: int
    proposed: int

    @classmethod
    def of(cls, stored: FrozenTrial, base: Config) -> Self | None:
        """Return the plan of a stored trial, None if it has the epochs that it was proposed with.

        `base`: the config of the study.
        """
        planned = stored.user_attrs.get(PLANNED_EPOCHS)
        if planned is None:
            return None
        own = proposed_params_of(stored).get("training.max_epochs", base.training.max_epochs)
        return cls(planned, own)


@dataclass
class RunningTrial:
    """A trial that this process has started, with what it has reached.

    `is_new`: `ask` has started it for the first time.
    """

    trial: optuna.Trial
    is_new: bool
    last_step: int = 0
    best: float = float("-inf")
    nodes: dict[str, str] = field(default_factory=dict)

    @classmethod
    def restore(
        cls, trial: optuna.Trial, stored: FrozenTrial, n_segments: int, *, is_new: bool
    ) -> Self:
        """Return the trial with the values that an earlier process stored, if there are any."""
        epochs = [v for step, v in stored.intermediate_values.items() if step % n_segments == 0]
        return cls(
            trial,
            is_new=is_new,
            last_step=stored.last_step or 0,
            best=max(epochs, default=float("-inf")),
            nodes=dict(stored.user_attrs.get("nodes", {})),
        )


def trial_seed(study_seed: int, number: int) -> int:
    """Return a trial's own seed, derived from the study's seed and the trial's number."""
    return int(np.random.SeedSequence((study_seed, number)).generate_state(1)[0])
