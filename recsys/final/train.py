"""One final training: the chosen config with one seed, and its scores on validation or test.

Runs in this process or on a node of the cluster (`placement`).
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from recsys.config.schema import Config
from recsys.console.verbosity import progress
from recsys.data.interactions import Interactions
from recsys.data.negatives import NegativeSampler
from recsys.errors import InputError
from recsys.evaluation.evaluate import evaluate
from recsys.evaluation.scorers import scorer_of
from recsys.models import Model
from recsys.training.fit import Epoch, fit


@dataclass(frozen=True)
class Trained:
    """A model trained for `n_epochs` epochs, and its `metrics` as `evaluate` names them."""

    model: Model
    n_epochs: int
    metrics: dict[str, float]


def train_for_validation(
    config: Config, data: Interactions, seed: int, n_epochs: int | None
) -> Trained:
    """Train as a trial of the search does, and return the model of the best epoch.

    `data` holds out validation. The metrics are of all users, even if a sample chose the epoch.

    Raises:
        DivergenceError: if the training diverges.
    """
    epochs = fit(config, data, seed, n_epochs=n_epochs, device=device_of(config))
    best = max(
        (
            epoch
            for epoch in _show_progress(epochs, config, seed, n_epochs)
            if epoch.whole and config.metric_name in epoch.metrics
        ),
        key=lambda epoch: epoch.metrics[config.metric_name],
    )
    state = best.state
    state.restore_best()
    state.model.end_training()
    with progress("Scoring validation"):
        scores = evaluate(scorer_of(state.model, data), data, config)
    return Trained(state.model, best.epoch, scores)


def train_for_test(config: Config, data: Interactions, seed: int, n_epochs: int | None) -> Trained:
    """Train for a given number of epochs, and score test once.

    `data` trains on train and validation, and holds out test.

    Raises:
        DivergenceError: if the training diverges.
    """
    trained = train_without_scores(config, data, seed, n_epochs)
    with progress("Scoring test"):
        scores = evaluate(scorer_of(trained.model, data), data, config)
    return dataclasses.replace(trained, metrics=scores)


def train_without_scores(
    config: Config, data: Interactions, seed: int, n_epochs: int | None
) -> Trained:
    """Train for a given number of epochs; the result has no metrics.

    Raises:
        DivergenceError: if the training diverges.
    """
    if not config.training.resample_negatives and data.negatives is None:
        data = _draw_fixed_negatives(config, data, seed)
    epochs = fit(config, data, seed, n_epochs=n_epochs, device=device_of(config), rank=False)
    *_, last = _show_progress(epochs, config, seed, n_epochs)
    last.state.model.end_training()
    return Trained(last.state.model, last.epoch, {})


def device_of(config: Config) -> str:
    """Return the torch device that the resources of a config ask for: `cpu` or `cuda`.

    Raises:
        InputError: if the config asks for a GPU and torch sees none.
    """
    if config.resources.gpu == 0:
        return "cpu"
    if not torch.cuda.is_available():
        raise InputError(
            "resources.gpu",
            "must be 0 where torch sees no GPU",
            f"{config.resources.gpu:g}",
            "Set it to 0 to train on the CPU.",
        )
    return "cuda"


def _draw_fixed_negatives(config: Config, data: Interactions, seed: int) -> Interactions:
    """Return the data with one set of negatives for all epochs.

    The fixed negatives of the processed data may be validation items, which are positives here.
    """
    negatives = NegativeSampler(data.seen).sample(
        data.user.astype(np.int64), config.training.n_negatives, np.random.default_rng(seed)
    )
    return dataclasses.replace(data, negatives=negatives.astype(np.int32))


def _show_progress(
    epochs: Iterator[Epoch], config: Config, seed: int, n_epochs: int | None
) -> Iterator[Epoch]:
    """Yield the epochs and show each as progress."""
    n_epochs = config.training.max_epochs if n_epochs is None else n_epochs
    with progress(f"Training with seed {seed}") as show:
        for epoch in epochs:
            step = "" if epoch.whole else f" (step {epoch.step})"
            values = {name: epoch.metrics.get(name) for name in ("train_loss", config.metric_name)}
            shown = "".join(
                f", {name} {value:.4f}" for name, value in values.items() if value is not None
            )
            show(f"epoch {epoch.epoch} of {n_epochs}{step}{shown}")
            yield epoch
