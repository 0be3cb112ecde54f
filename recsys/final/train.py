"""Training a chosen config to the end: on train and validation for the test, or on train alone for validation.

Stands behind the search. Test is scored here and by the evaluate command alone, and each scoring leaves a line in
`test_scores.jsonl`, so that nobody can look at test often without its being seen.
"""

import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from recsys.config.schema import Config
from recsys.console.verbosity import progress
from recsys.data.interactions import Interactions
from recsys.data.negatives import NegativeSampler
from recsys.errors import InputError
from recsys.evaluation.evaluate import evaluate
from recsys.evaluation.ranking import ModelScorer
from recsys.models import Model
from recsys.storage.s3 import fetch, publish, url_of
from recsys.training.fit import Epoch, fit


@dataclass(frozen=True)
class Trained:
    """A trained model after `n_epochs` epochs and what it reached; `metrics` are those of `evaluate`."""

    model: Model
    n_epochs: int
    metrics: dict[str, float]


def find_n_epochs(config: Config, train: Callable[[], Trained]) -> int:
    """How many epochs to train: `training.max_epochs`, or with patience the best epoch of what `train` trains.

    It holds out validation.
    """
    return config.training.max_epochs if config.training.patience is None else train().n_epochs


def train_on_validation(
    config: Config, data: Interactions, seed: int, n_epochs: int | None
) -> Trained:
    """Train as a trial of the search does, and report the best epoch's validation metrics.

    `data` holds out validation.
    """
    epochs = _shown(
        fit(config, data, seed, n_epochs=n_epochs, device=device_of(config)), config, seed, n_epochs
    )
    best = max(
        (epoch for epoch in epochs if epoch.whole),
        key=lambda epoch: epoch.metrics[config.metric_name],
    )
    metrics = {
        name.removeprefix("val_"): value
        for name, value in best.metrics.items()
        if name.startswith("val_")
    }
    state = best.state
    if state.best_weights is not None:
        state.model.load_state_dict(state.best_weights)
    return Trained(state.model, best.epoch, metrics)


def train_for_test(config: Config, data: Interactions, seed: int, n_epochs: int | None) -> Trained:
    """Train for a number of epochs that was chosen before, and score test once.

    `data` trains on train and validation, and holds out test.
    """
    if not config.training.resample_negatives:
        # The fixed negatives of the processed data may be validation items, which are positives here: draw a set once.
        draws = NegativeSampler(data.seen).sample_numpy(
            data.user.astype(np.int64), config.training.n_negatives, np.random.default_rng(seed)
        )
        data = dataclasses.replace(data, negatives=draws.astype(np.int32))
    epochs = fit(config, data, seed, n_epochs=n_epochs, device=device_of(config), rank=False)
    *_, last = _shown(epochs, config, seed, n_epochs)
    with progress("Scoring test"):
        scores = evaluate(ModelScorer(last.state.model, data.n_items), data, config)
    return Trained(last.state.model, last.epoch, scores)


def _shown(
    epochs: Iterator[Epoch], config: Config, seed: int, n_epochs: int | None
) -> Iterator[Epoch]:
    """Yield the epochs, each shown as progress."""
    last = config.training.max_epochs if n_epochs is None else n_epochs
    with progress(f"Training with seed {seed}") as show:
        for epoch in epochs:
            part = "" if epoch.whole else f" (step {epoch.step})"
            values = {name: epoch.metrics.get(name) for name in ("train_loss", config.metric_name)}
            shown = "".join(
                f", {name} {value:.4f}" for name, value in values.items() if value is not None
            )
            show(f"epoch {epoch.epoch} of {last}{part}{shown}")
            yield epoch


def append_test_scores(
    folder: Path, command: str, model: Path, scores: Mapping[str, float]
) -> None:
    """Add a line to the folder's `test_scores.jsonl`."""
    entry = {
        "time": int(time.time()),
        "command": command,
        "model": url_of(model) or str(model),
        "test": dict(scores),
    }
    path = folder / "test_scores.jsonl"
    fetch(path)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")
    publish(path)


def device_of(config: Config) -> str:
    """The torch device that the resources of a config ask for.

    Raises:
        InputError: if it asks for a GPU and torch sees none.
    """
    if config.resources.gpu == 0:
        return "cpu"
    if not torch.cuda.is_available():
        raise InputError(
            "resources.gpu",
            "must be 0 where torch sees no GPU",
            f"{config.resources.gpu:g}",
            "Go on without it: --set resources.gpu=0.",
        )
    return "cuda"
