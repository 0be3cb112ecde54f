"""The only training loop: a generator that yields after each epoch and each segment of a long one.

A trial reports what it yields; final training exhausts it. Every random draw depends on the seed,
the epoch and the segment alone, so a training that is resumed from a saved state equals an
uninterrupted one bit for bit (on the CPU, with as many threads). The caller sets the number of
threads.
"""

import dataclasses
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from recsys.config.components import LOSSES
from recsys.config.schema import Config
from recsys.data.interactions import Interactions
from recsys.errors import DivergenceError, InputError
from recsys.evaluation.evaluate import evaluate, sample_users
from recsys.evaluation.scorers import scorer_of
from recsys.training.checkpoint import TrainingState, start_training
from recsys.training.contract import Trainer
from recsys.training.gradient_descent import Descent
from recsys.training.least_squares import LeastSquares
from recsys.training.segments import count_segments, is_ranked

SEGMENT_USERS = 4096
"""Most users that are ranked after a segment within an epoch."""


@dataclass(frozen=True)
class Epoch:
    """Results of one epoch (counted from 1), or of its segments so far if it is not `whole`.

    `step`: segments since the start of the training. `metrics`: `train_loss`, `train_seconds`,
    `samples_per_second` of the epoch so far, those of the model and, if it is ranked,
    `rank_seconds` and the values of `evaluate` with the prefix `val_`. `state`: the training so
    far; save it before the next epoch changes it. `is_last`: the training ends here.
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
    n_segments: int | None = None,
) -> Iterator[Epoch]:
    """Train until `n_epochs` epochs are done or patience runs out; yield each epoch and segment.

    `n_epochs`: `training.max_epochs` if None. The learning rate decays over `training.max_epochs`
    in any case.
    `state`: a training of the same config, data and seed to resume. Its last epoch is yielded
    first, since it may have been saved but not reported. `rank`: rank the held-out positives after
    every `evaluation.every` epochs and the last, and keep the best weights in `state`. A sample of
    `evaluation.max_users` users is ranked, drawn by `data.split_seed`; within an epoch at most
    `SEGMENT_USERS` users. `n_segments`: segments of an epoch; if None as many as its length asks
    for.

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
    n_segments = n_segments or count_segments(len(data.user))
    state = state or start_training(config, data.n_users, data.n_items, seed, device)
    if LOSSES[config.training.loss].solver == "least_squares":
        trainer: Trainer = LeastSquares(config, data, state, device, n_segments=n_segments)
    else:
        trainer = Descent(config, data, state, seed, device, n_segments=n_segments)
    last = config.training.max_epochs if n_epochs is None else n_epochs
    if state.metrics:
        yield _report(state, trainer.n_segments, config, last)
    while state.segment or not _has_ended(state, config, last):
        for segment in range(state.segment + 1, trainer.n_segments + 1):
            ranks = rank and is_ranked(state.epoch + 1, config.evaluation.period, last)
            _train_segment(config, data, state, trainer, segment, rank=ranks)
            yield _report(state, trainer.n_segments, config, last)


def _train_segment(
    config: Config,
    data: Interactions,
    state: TrainingState,
    trainer: Trainer,
    segment: int,
    *,
    rank: bool,
) -> None:
    """Train and rank one segment of the next epoch, counted from 1, and note its metrics."""
    start = time.perf_counter()
    loss = trainer.train(state.epoch + 1, segment)
    metrics = _metrics_so_far(trainer, state, loss, time.perf_counter() - start)
    metrics |= state.model.metrics()
    is_whole = segment == trainer.n_segments
    if rank:
        metrics |= _rank(config, data, state, None if is_whole else SEGMENT_USERS)
    state.advance(metrics, is_whole)
    if rank and is_whole:
        state.note_value(metrics[config.metric_name])


def _report(state: TrainingState, n_segments: int, config: Config, last: int) -> Epoch:
    is_whole, step = state.segment == 0, state.epoch * n_segments + state.segment
    is_last = is_whole and _has_ended(state, config, last)
    epoch = state.epoch if is_whole else state.epoch + 1
    return Epoch(epoch, step, is_whole, state.metrics, state, is_last)


def _rank(
    config: Config, data: Interactions, state: TrainingState, n_users: int | None
) -> dict[str, float]:
    """Rank the held-out positives, of at most `n_users` users if it is given."""
    start = time.perf_counter()
    limits = [limit for limit in (config.evaluation.user_limit, n_users) if limit is not None]
    if data.held_out is not None and limits:
        held_out = sample_users(data.held_out, min(limits), config.data.split_seed)
        data = dataclasses.replace(data, held_out=held_out)
    values = evaluate(scorer_of(state.model, data), data, config)
    seconds = state.metrics_so_far.get("rank_seconds", 0.0) + time.perf_counter() - start
    return {"rank_seconds": seconds} | {f"val_{name}": value for name, value in values.items()}


def _has_ended(state: TrainingState, config: Config, last: int) -> bool:
    """Return whether no epochs or no patience remain; `state` must be between two epochs.

    Patience ends a training only after a ranked epoch: an unranked one may be the best.
    """
    if state.epoch >= last:
        return True
    patience = config.training.patience
    return (
        isinstance(patience, int)
        and config.metric_name in state.metrics
        and state.best_epoch is not None
        and state.epoch - state.best_epoch >= patience
    )


def _metrics_so_far(
    trainer: Trainer, state: TrainingState, loss: float, seconds: float
) -> dict[str, float]:
    """Return the metrics of the epoch in progress after one more segment.

    `loss` is the sum over the rows of the segment.

    Raises:
        DivergenceError: if the loss is not finite.
    """
    so_far = state.metrics_so_far
    n_before, n_rows = trainer.n_rows(state.segment), trainer.n_rows(state.segment + 1)
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
        "samples_per_second": trainer.n_samples(state.segment + 1) / seconds,
    }
