"""The only training loop: a generator that yields after each epoch, with its metrics and the state to continue from.

A trial reports what it yields, the final training drains it. A long epoch is trained in parts, and yields after each, so that a
trial can be stopped and saved within it. Every random draw derives from the seed, the epoch and the part alone, so that a
training continued from a saved state equals an unbroken one bit for bit (on the CPU, with as many threads). The number of
threads is the caller's.
"""

import dataclasses
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from recsys.config.components import LOSSES
from recsys.config.schema import Config
from recsys.config.sections import TrainingConfig
from recsys.data.interactions import Interactions
from recsys.errors import DivergenceError, InputError
from recsys.evaluation.evaluate import evaluate, sample_users
from recsys.evaluation.ranking import ModelScorer
from recsys.training.checkpoint import TrainingState, start_training
from recsys.training.contract import Trainer
from recsys.training.gradient_descent import Descent
from recsys.training.least_squares import LeastSquares

PART_USERS = 4096
"""Users that are ranked within an epoch at most."""


@dataclass(frozen=True)
class Epoch:
    """What one epoch (1-based) gave, or the parts of it so far where it is not `whole`.

    `step`: parts of epochs since the start of the training, so the number of the epoch where epochs have one part. `metrics`:
    `train_loss`, `train_seconds`, `samples_per_second` of the epoch so far, and where it is ranked `rank_seconds` and the values
    of `evaluate` with the prefix `val_`. `state`: the training so far; save it before the next epoch changes it. `is_last`:
    whether the training ends here.
    """

    epoch: int
    step: int
    whole: bool
    metrics: dict[str, float]
    state: TrainingState
    is_last: bool


def fit(
    config: Config,
    data: Interactions,
    seed: int,
    *,
    n_epochs: int | None = None,
    device: str | torch.device = "cpu",
    state: TrainingState | None = None,
    rank: bool = True,
) -> Iterator[Epoch]:
    """Train until `n_epochs` epochs are done, `training.max_epochs` where None, or patience runs out; yield each epoch.

    The learning rate decays over `training.max_epochs`, whatever `n_epochs` says. With `rank`, each epoch ranks the held-out
    positives (of a sample of `evaluation.max_users` users, drawn by `data.split_seed`; within an epoch of at most `PART_USERS`)
    and `state` keeps the best weights. `state` continues a training of the same config, data and seed; what it had come to is
    yielded first, since it may have been saved and not reported.

    Raises:
        InputError: if the data has nothing to train on or, with `rank`, to rank.
        DivergenceError: if the loss or a score stops being finite.
    """
    if len(data.user) == 0:
        raise InputError(
            "training",
            "must have at least one positive interaction",
            "0",
            "Lower data.positive_threshold.",
        )
    state = state or start_training(config, data.n_users, data.n_items, seed, device)
    if LOSSES[config.training.loss].solver == "least_squares":
        trainer: Trainer = LeastSquares(config, data, state, device)
    else:
        trainer = Descent(config, data, state, seed, device)
    last = config.training.max_epochs if n_epochs is None else n_epochs
    if state.metrics:
        yield _report(state, trainer.n_parts, config, last)
    while not _has_ended(state, config.training, last):
        start = time.perf_counter()
        for part in range(state.parts + 1, trainer.n_parts + 1):
            loss = trainer.train(state.epoch + 1, part)
            metrics = _metrics_so_far(trainer, state, loss, time.perf_counter() - start)
            is_whole = part == trainer.n_parts
            if rank:
                metrics |= _rank(config, data, state, None if is_whole else PART_USERS)
            state.advance(metrics, is_whole)
            if rank and is_whole:
                state.note_value(metrics[config.metric_name])
            yield _report(state, trainer.n_parts, config, last)
            start = time.perf_counter()


def _report(state: TrainingState, n_parts: int, config: Config, last: int) -> Epoch:
    is_whole, step = state.parts == 0, state.epoch * n_parts + state.parts
    is_last = is_whole and _has_ended(state, config.training, last)
    return Epoch(
        state.epoch if is_whole else state.epoch + 1, step, is_whole, state.metrics, state, is_last
    )


def _rank(
    config: Config, data: Interactions, state: TrainingState, n_users: int | None
) -> dict[str, float]:
    """Rank the held-out positives, those of at most `n_users` users where it is given."""
    start = time.perf_counter()
    limits = [limit for limit in (config.evaluation.max_users, n_users) if limit is not None]
    if data.held_out is not None and limits:
        held_out = sample_users(data.held_out, min(limits), config.data.split_seed)
        data = dataclasses.replace(data, held_out=held_out)
    values = evaluate(ModelScorer(state.model, data.n_items), data, config)
    seconds = state.metrics_so_far.get("rank_seconds", 0.0) + time.perf_counter() - start
    return {"rank_seconds": seconds} | {f"val_{name}": value for name, value in values.items()}


def _has_ended(state: TrainingState, training: TrainingConfig, last: int) -> bool:
    """Whether a training that has just completed an epoch, or not begun, goes no further."""
    if state.epoch >= last:
        return True
    return (
        training.patience is not None
        and state.best_epoch is not None
        and state.epoch - state.best_epoch >= training.patience
    )


def _metrics_so_far(
    trainer: Trainer, state: TrainingState, loss: float, seconds: float
) -> dict[str, float]:
    """The metrics of the epoch in progress after one more part of `loss`, the sum over its rows.

    Raises:
        DivergenceError: if the loss is not finite.
    """
    so_far, n_before, n_rows = (
        state.metrics_so_far,
        trainer.n_rows(state.parts),
        trainer.n_rows(state.parts + 1),
    )
    mean = (so_far.get("train_loss", 0.0) * n_before + loss) / n_rows
    if not math.isfinite(mean):
        raise DivergenceError(
            f"train_loss, epoch {state.epoch + 1}",
            "must be finite",
            mean,
            "Lower training.learning_rate.",
        )
    seconds += so_far.get("train_seconds", 0.0)
    return {
        "train_loss": mean,
        "train_seconds": seconds,
        "samples_per_second": trainer.n_samples(state.parts + 1) / seconds,
    }
