"""Gradient descent: one step of Adam for each batch of a segment.

Called by `fit`, to which it returns the loss; `batches` and `full_softmax` provide the rows.
"""

import math
from collections.abc import Callable
from typing import Any

import torch

from recsys.config.schema import Config
from recsys.config.sections import TrainingConfig
from recsys.data.interactions import Interactions
from recsys.models.histories import HistoryModel
from recsys.training.batches import training_rows
from recsys.training.checkpoint import TrainingState
from recsys.training.contract import Rows
from recsys.training.full_softmax import user_rows
from recsys.training.latents import store_latents
from recsys.training.least_squares import LeastSquares
from recsys.training.optimiser import Optimiser
from recsys.training.segments import generator_of, segment_seed

_DECAYS: dict[str | None, Callable[[float], float]] = {
    None: lambda _: 1.0,
    "linear": lambda progress: 1 - progress,
    "cosine": lambda progress: (1 + math.cos(math.pi * progress)) / 2,
}

_START = {"l2": 0.1, "n_negatives": 16, "recency_half_life": None}
_START_EPOCHS = 5
"""Settings and epochs of the least squares that a training may start with."""
_ROWS: dict[str, Callable[[Config, Interactions, str | torch.device, int], Rows]] = {
    "uniform": training_rows,
    "popularity": training_rows,
    "all": user_rows,
}


class Descent:
    """Trainer of `state` by gradient descent. `n_segments`: segments of an epoch."""

    def __init__(
        self,
        config: Config,
        data: Interactions,
        state: TrainingState,
        seed: int,
        device: str | torch.device,
        *,
        n_segments: int,
    ) -> None:
        self._training, self._state, self._seed, self._device = config.training, state, seed, device
        self._histories = data.histories()
        if state.epoch == state.segment == 0:
            if state.model.starts_with_least_squares:
                _solve_start(config, data, state, device)
            state.model.begin_training(generator_of(seed, 0, 1, device))
        self._rows = _ROWS[config.training.negative_sampling](config, data, device, n_segments)
        self._optimiser = Optimiser(config.model, state.model, state.adam, self._rows.n_lookups)
        self._epoch = 0
        self._order: Any = None
        self.n_segments = n_segments

    def train(self, epoch: int, segment: int) -> float:
        """Train a segment of an epoch, both counted from 1; return the sum of its rows' losses."""
        training, seed, device = self._training, self._seed, self._device
        if epoch != self._epoch:
            self._order = self._rows.shuffle(generator_of(seed, epoch, 0, device))
            self._epoch = epoch
        decay = _DECAYS[training.learning_rate_decay]((epoch - 1) / training.max_epochs)
        self._state.adam.learning_rate = training.learning_rate * decay
        training = _annealed(training, epoch)
        model = self._optimiser.model.train()
        generator = generator_of(seed, epoch, segment, device)
        total = torch.zeros((), device=device)
        # Dropout draws from torch's global generators: seed them, and restore them afterwards.
        devices = [device] if torch.device(device).type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(segment_seed(seed, epoch, segment))
            for batch in self._rows.batches(self._order, segment - 1, generator):
                loss = self._optimiser.prepare(batch).loss(model, training)
                torch.autograd.backward(loss)
                self._optimiser.step()
                total.add_(loss.detach(), alpha=batch.n_rows)
        self._optimiser.catch_up()
        self._state.model.end_segment(generator, ends_epoch=segment == self.n_segments)
        if isinstance(self._state.model, HistoryModel):
            store_latents(self._state.model, training, self._histories)
        return float(total)

    def n_rows(self, n_segments: int) -> int:
        """Return the number of rows in the first `n_segments` segments of the last epoch."""
        return self._rows.n_rows_of(self._order, n_segments)

    def n_samples(self, n_segments: int) -> int:
        """Return the number of user-item pairs in the first `n_segments` of the last epoch."""
        return self._rows.n_samples_of(self._order, n_segments)


def _solve_start(
    config: Config, data: Interactions, state: TrainingState, device: str | torch.device
) -> None:
    """Fit the embeddings of users and items by least squares, in place."""
    config = config.model_copy(update={"training": config.training.model_copy(update=_START)})
    trainer = LeastSquares(config, data, state, device, n_segments=1)
    for epoch in range(1, _START_EPOCHS + 1):
        trainer.train(epoch, 1)


def _annealed(training: TrainingConfig, epoch: int) -> TrainingConfig:
    """Return the settings of an epoch: `kl_weight` grows over the first half of the epochs."""
    share = min(1.0, 2 * (epoch - 1) / training.max_epochs)
    return training.model_copy(update={"kl_weight": training.kl_weight * share})
