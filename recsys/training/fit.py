"""The only training loop: a generator that yields after each epoch, with its metrics and the state to continue from.

A trial reports what it yields, the final training drains it. A long epoch is trained in parts, and yields after each, so that a
trial can be stopped and saved within it. Every random draw derives from the seed, the epoch and the part alone, so that a
training continued from a saved state equals an unbroken one bit for bit (on the CPU, with as many threads). The number of
threads is the caller's.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from recsys.config import Config, TrainingConfig
from recsys.data.interactions import Interactions
from recsys.models import Model
from recsys.training.batches import Batch, TrainingRows, training_rows
from recsys.training.evaluation import evaluate, sample_users
from recsys.training.losses import choose_loss, explicit_negative_bce, l2_penalty
from recsys.training.optimiser import Optimiser
from recsys.training.ranking import ModelScorer
from recsys.training.seeds import generator_of, part_seed
from recsys.training.state import TrainingState, start_training

_DECAYS: dict[str | None, Callable[[float], float]] = {
    None: lambda _: 1.0,
    "linear": lambda progress: 1 - progress,
    "cosine": lambda progress: (1 + math.cos(math.pi * progress)) / 2,
}

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
        ValueError: if the data has nothing to train on or, with `rank`, to rank.
        FloatingPointError: if the loss or a score stops being finite.
    """
    rows = training_rows(config, data, device)
    state = state or start_training(config, data.n_users, data.n_items, seed, device)
    optimiser = Optimiser(config.model, state.model, state.optimiser, rows.n_lookups)
    last = config.training.max_epochs if n_epochs is None else n_epochs
    if state.metrics:
        yield _report(state, rows, config, last)
    while not _has_ended(state, config.training, last):
        start = time.perf_counter()
        order = rows.shuffle(generator_of(seed, state.epoch + 1, 0, device))
        for part in range(state.parts + 1, rows.n_parts + 1):
            loss = _train_part(config.training, rows, order, state, optimiser, seed=seed)
            metrics = _metrics_so_far(rows, state, loss, time.perf_counter() - start)
            is_whole = part == rows.n_parts
            if rank:
                metrics |= _rank(config, data, state, None if is_whole else PART_USERS)
            state.advance(metrics, is_whole)
            if rank and is_whole:
                state.note_value(metrics[config.metric_name])
            yield _report(state, rows, config, last)
            start = time.perf_counter()


def _report(state: TrainingState, rows: TrainingRows, config: Config, last: int) -> Epoch:
    is_whole, step = state.parts == 0, state.epoch * rows.n_parts + state.parts
    is_last = is_whole and _has_ended(state, config.training, last)
    return Epoch(state.epoch if is_whole else state.epoch + 1, step, is_whole, state.metrics, state, is_last)


def _rank(config: Config, data: Interactions, state: TrainingState, n_users: int | None) -> dict[str, float]:
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
    return training.patience is not None and state.best_epoch is not None and state.epoch - state.best_epoch >= training.patience


def _train_part(
    training: TrainingConfig,
    rows: TrainingRows,
    order: tuple[Tensor, Tensor],
    state: TrainingState,
    optimiser: Optimiser,
    *,
    seed: int,
) -> float:
    """Train the next part of an epoch and return its loss, the sum over rows."""
    device, epoch, part = rows.user.device, state.epoch + 1, state.parts + 1
    progress = state.epoch / training.max_epochs
    for group in state.optimiser.param_groups:
        group["lr"] = training.learning_rate * _DECAYS[training.learning_rate_decay](progress)
    optimiser.model.train()
    total = torch.zeros((), device=device)
    # Dropout draws from torch's global generators: seed them for this part, and give them back as they were.
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(part_seed(seed, epoch, part))
        for batch in rows.batches(order, state.parts, generator_of(seed, epoch, part, device)):
            log_weights = None if rows.log_weights is None else rows.log_weights[batch.item]  # (B, 1 + n)
            loss = _batch_loss(optimiser.model, optimiser.prepare(batch), training, log_weights)
            torch.autograd.backward(loss)
            optimiser.step()
            total.add_(loss.detach(), alpha=len(batch.user) + len(batch.low_user))
    optimiser.settle()
    return float(total)


def _metrics_so_far(rows: TrainingRows, state: TrainingState, loss: float, seconds: float) -> dict[str, float]:
    """The metrics of the epoch in progress after one more part of `loss`, the sum over its rows.

    Raises:
        FloatingPointError: if the loss is not finite.
    """
    so_far, (n_rows, n_low) = state.metrics_so_far, rows.n_rows_of(state.parts + 1)
    mean = (so_far.get("train_loss", 0.0) * sum(rows.n_rows_of(state.parts)) + loss) / (n_rows + n_low)
    if not math.isfinite(mean):
        raise FloatingPointError(
            f"train_loss, epoch {state.epoch + 1}: must be finite, but got {mean}. Lower training.learning_rate."
        )
    seconds += so_far.get("train_seconds", 0.0)
    n_samples = n_rows * (1 + rows.n_negatives) + n_low
    return {"train_loss": mean, "train_seconds": seconds, "samples_per_second": n_samples / seconds}


def _batch_loss(model: Model, batch: Batch, training: TrainingConfig, log_weights: Tensor | None) -> Tensor:
    """The mean over a batch's rows of their loss and penalty."""
    row_loss = choose_loss(training)
    if len(batch.low_user) == 0:
        user, item = model.user_side(batch.user), model.item_side(batch.item)
        logits = model.score(user, item)  # (B, 1 + n)
        losses = row_loss(logits if log_weights is None else logits - log_weights)
        return (losses + training.l2 * l2_penalty(user, item)).mean() if training.l2 else losses.mean()
    # Both kinds of rows are looked up at once, so that each table gets one gradient.
    n_rows, width = batch.item.shape
    user, low_user = model.user_side(torch.cat([batch.user, batch.low_user])).split(n_rows)
    item, low_item = model.item_side(torch.cat([batch.item.reshape(-1), batch.low_item])).split(n_rows * width)
    item, low_item = item.unflatten(width), low_item.unflatten(1)
    losses = torch.cat([row_loss(model.score(user, item)), explicit_negative_bce(model.score(low_user, low_item))])
    if training.l2:
        losses = losses + training.l2 * torch.cat([l2_penalty(user, item), l2_penalty(low_user, low_item)])
    return losses.mean()
