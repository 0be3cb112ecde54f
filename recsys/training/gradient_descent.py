"""Gradient descent: the batches of an epoch, or of a part of it, each a step of Adam.

Stands between the loop in `fit` and the batches. Every random draw derives from the seed, the epoch and the part alone.
"""

import math
from collections.abc import Callable
from typing import Any

import torch

from recsys.config.schema import Config
from recsys.data.interactions import Interactions
from recsys.training.batches import training_rows
from recsys.training.checkpoint import TrainingState
from recsys.training.contract import Rows
from recsys.training.full_softmax import user_rows
from recsys.training.optimiser import Optimiser
from recsys.training.seeds import generator_of, part_seed

_DECAYS: dict[str | None, Callable[[float], float]] = {
    None: lambda _: 1.0,
    "linear": lambda progress: 1 - progress,
    "cosine": lambda progress: (1 + math.cos(math.pi * progress)) / 2,
}

_ROWS: dict[str, Callable[[Config, Interactions, str | torch.device], Rows]] = {
    "uniform": training_rows,
    "popularity": training_rows,
    "all": user_rows,
}


class Descent:
    """Trains `state`, part after part. `n_parts`: parts of an epoch."""

    def __init__(
        self,
        config: Config,
        data: Interactions,
        state: TrainingState,
        seed: int,
        device: str | torch.device,
    ) -> None:
        self._training, self._state, self._seed, self._device = config.training, state, seed, device
        self._rows = _ROWS[config.training.negative_sampling](config, data, device)
        self._optimiser = Optimiser(config.model, state.model, state.adam, self._rows.n_lookups)
        self._epoch = 0
        self._order: Any = None
        self.n_parts = self._rows.n_parts

    def train(self, epoch: int, part: int) -> float:
        """Train a part of an epoch, both from 1; the sum of its rows' losses."""
        training, state = self._training, self._state
        if epoch != self._epoch:
            self._epoch, self._order = (
                epoch,
                self._rows.shuffle(generator_of(self._seed, epoch, 0, self._device)),
            )
        decay = _DECAYS[training.learning_rate_decay]
        state.adam.learning_rate = training.learning_rate * decay((epoch - 1) / training.max_epochs)
        model = self._optimiser.model.train()
        total = torch.zeros((), device=self._device)
        # Dropout draws from torch's global generators: seed them for this part, and give them back as they were.
        with torch.random.fork_rng(
            devices=[self._device] if torch.device(self._device).type == "cuda" else []
        ):
            torch.manual_seed(part_seed(self._seed, epoch, part))
            for batch in self._rows.batches(
                self._order, part - 1, generator_of(self._seed, epoch, part, self._device)
            ):
                loss = self._optimiser.prepare(batch).loss(model, training)
                torch.autograd.backward(loss)
                self._optimiser.step()
                total.add_(loss.detach(), alpha=batch.n_rows)
        self._optimiser.catch_up()
        return float(total)

    def n_rows(self, n_parts: int) -> int:
        """Rows in the first `n_parts` parts of the epoch that was trained last."""
        return self._rows.n_rows_of(self._order, n_parts)

    def n_samples(self, n_parts: int) -> int:
        """Pairs of user and item that the first `n_parts` parts of the epoch train on."""
        return self._rows.n_samples_of(self._order, n_parts)
