"""The only training loop: a generator that yields after each epoch, with its metrics and the state to continue from.

A trial reports what it yields, the final training drains it. Every random draw of an epoch derives from the seed and the epoch
alone, so that a training continued from a saved state equals an unbroken one bit for bit (on the CPU, with as many threads).
The number of threads is the caller's.
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
from recsys.training.seeds import epoch_seed, generator_of
from recsys.training.state import TrainingState, start_training

_DECAYS: dict[str | None, Callable[[float], float]] = {
    None: lambda _: 1.0,
    "linear": lambda progress: 1 - progress,
    "cosine": lambda progress: (1 + math.cos(math.pi * progress)) / 2,
}


@dataclass(frozen=True)
class Epoch:
    """What one epoch (1-based) gave.

    `metrics`: `train_loss`, `train_seconds`, `samples_per_second`, and where the epoch is ranked `rank_seconds` and the values of
    `evaluate` with the prefix `val_`. `state`: the training so far; save it before the next epoch changes it. `is_last`: whether
    the training ends here.
    """

    epoch: int
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
    positives (of a sample of `evaluation.max_users` users, drawn by `data.split_seed`) and `state` keeps the best weights.
    `state` continues a training of the same config, data and seed; one that had ended yields its last epoch again.

    Raises:
        ValueError: if the data has nothing to train on or, with `rank`, to rank.
        FloatingPointError: if the loss or a score stops being finite.
    """
    rows = training_rows(config, data, device)
    state = state or start_training(config, data.n_users, data.n_items, seed, device)
    optimiser = Optimiser(config.model, state.model, state.optimiser, rows.n_lookups)
    ranked = _ranked_part(config, data) if rank else None
    last = config.training.max_epochs if n_epochs is None else n_epochs
    if state.metrics and _has_ended(state, config.training, last):
        # Saved after its last epoch, which may not have been reported when the worker died: report it again.
        yield Epoch(state.epoch, state.metrics, state, is_last=True)
    while not _has_ended(state, config.training, last):
        start = time.perf_counter()
        loss = _train_epoch(config.training, rows, state, optimiser, seed)
        seconds = time.perf_counter() - start
        metrics = {"train_loss": loss, "train_seconds": seconds, "samples_per_second": rows.n_samples / seconds}
        if ranked is not None:
            start = time.perf_counter()
            values = evaluate(ModelScorer(state.model, data.n_items), ranked, config)
            metrics |= {"rank_seconds": time.perf_counter() - start} | {f"val_{name}": value for name, value in values.items()}
            state.note_value(metrics[config.metric_name])
        state.metrics = metrics
        yield Epoch(state.epoch, metrics, state, _has_ended(state, config.training, last))


def _ranked_part(config: Config, data: Interactions) -> Interactions:
    if data.held_out is None or config.evaluation.max_users is None:
        return data
    held_out = sample_users(data.held_out, config.evaluation.max_users, config.data.split_seed)
    return dataclasses.replace(data, held_out=held_out)


def _has_ended(state: TrainingState, training: TrainingConfig, last: int) -> bool:
    if state.epoch >= last:
        return True
    return training.patience is not None and state.best_epoch is not None and state.epoch - state.best_epoch >= training.patience


def _train_epoch(training: TrainingConfig, rows: TrainingRows, state: TrainingState, optimiser: Optimiser, seed: int) -> float:
    """Train the next epoch and return its loss, the mean over rows."""
    device = rows.user.device
    epoch = state.epoch + 1
    progress = state.epoch / training.max_epochs
    for group in state.optimiser.param_groups:
        group["lr"] = training.learning_rate * _DECAYS[training.learning_rate_decay](progress)
    optimiser.model.train()
    total = torch.zeros((), device=device)
    # Dropout draws from torch's global generators: seed them for this epoch, and give them back as they were.
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(epoch_seed(seed, epoch))
        for batch in rows.epoch(generator_of(seed, epoch, device)):
            log_weights = None if rows.log_weights is None else rows.log_weights[batch.item]  # (B, 1 + n)
            loss = _batch_loss(optimiser.model, optimiser.prepare(batch), training, log_weights)
            torch.autograd.backward(loss)
            optimiser.step()
            total.add_(loss.detach(), alpha=len(batch.user) + len(batch.low_user))
    optimiser.settle()
    mean = float(total) / (len(rows.user) + len(rows.low_user))
    if not math.isfinite(mean):
        raise FloatingPointError(f"train_loss, epoch {epoch}: must be finite, but got {mean}. Lower training.learning_rate.")
    state.epoch = epoch
    return mean


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
