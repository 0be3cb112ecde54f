"""The training loop of `fit`, with sampling and shuffling, beside a bare loop of the same model.

The bare loop draws nothing: it repeats batches that were drawn before, with Adam's fused kernel on
all rows of the embeddings. Both run on one core.
"""

import itertools
import math
import statistics
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch

from benchmarks.interactions import SIZES, draw_index, make_interactions, make_tastes, read_embedded
from benchmarks.measure import Row, Target, in_turns, rate, ratios, run, spread
from recsys.config.schema import Config
from recsys.data.interactions import Interactions
from recsys.models import build_model
from recsys.training import optimiser
from recsys.training.batches import training_rows
from recsys.training.fit import fit
from recsys.training.losses import bce

MODELS = (("neumf", 16, 4), ("neumf", 64, 4), ("inner_product", 64, 8))
"""Names, embedding widths and negatives."""
BATCHES = (256, 2048, 8192)
REPEATS = 3
SEEDS = 3
QUALITY_EPOCHS = 8
SAME_QUALITY = 0.97
"""Bound that allows for rounding.

First weights that differ by 1e-6 change the NDCG@10 of a seed by 1%.
"""
N_POSITIVES = 1 << 18
"""Positives of an epoch.

All of the data counts as seen, so that negatives are as hard to draw as in a whole epoch.
"""
BARE_STEPS = 1024
"""Steps of the bare loop at most: an epoch with batches of 256.

Large embeddings get a sixteenth of it, because each step takes long.
"""


def measure() -> Iterator[Row]:
    """Measure every model, batch size and size of data."""
    torch.set_num_threads(1)
    for size, numbers in SIZES.items():
        data = make_interactions(draw_index(*numbers), N_POSITIVES, 1)
        for (name, dim, n_negatives), batch_size in itertools.product(MODELS, BATCHES):
            training = {"batch_size": batch_size, "n_negatives": n_negatives, "max_epochs": 1000}
            config = Config.model_validate(
                {"model": {"name": name, "embedding_dim": dim}, "training": training}
            )
            row = _measure_case(f"{name} d={dim}, batch {batch_size}, {size}", config, data)
            yield replace(
                row,
                at={
                    "model": f"{name} d={dim}",
                    "batch": batch_size,
                    "users and items": sum(numbers[:2]),
                },
            )
    for source, data in {
        "ml-latest-small": read_embedded(),
        "synthetic tastes": make_tastes(3000, 5000, 90_000),
    }.items():
        yield _measure_quality(source, data)


def _measure_case(case: str, config: Config, data: Interactions) -> Row:
    epochs = fit(config, data, 0, rank=False)
    steps = BARE_STEPS if data.n_users < 100_000 else BARE_STEPS // 16
    results = in_turns(
        {
            "fit": lambda: next(epochs).metrics["samples_per_second"] / 1e6,
            "bare loop": bare_loop(config, data, steps),
        },
        REPEATS,
    )
    share = ratios(results["fit"], results["bare loop"])
    targets = [
        Target("ratio to the bare loop", share, 0.9 if config.model.embedding_dim == 64 else 0.8)
    ]
    if (
        config.model.name == "neumf"
        and config.model.embedding_dim == 64
        and config.training.batch_size == 256
    ):
        targets += [Target("ratio to dense fused Adam", share, 5)] if data.n_users > 100_000 else []
    return Row(
        case, {f"{name}, M samples/s": spread(values) for name, values in results.items()}, targets
    )


def _measure_quality(source: str, data: Interactions) -> Row:
    """Measure NDCG@10 with row-wise and with dense Adam, whatever the size of the embeddings."""
    config = Config.model_validate({"training": {"batch_size": 256, "max_epochs": QUALITY_EPOCHS}})
    values = {}
    chosen = optimiser.MIN_VALUES
    for way, least in {"row-wise Adam": -math.inf, "dense Adam": math.inf}.items():
        optimiser.MIN_VALUES = least
        values[way] = [
            max(epoch.metrics["val_ndcg_at_10"] for epoch in fit(config, data, seed))
            for seed in range(SEEDS)
        ]
    optimiser.MIN_VALUES = chosen
    by_rows, whole = (statistics.mean(ndcg) for ndcg in values.values())
    same = Target(
        "mean of row-wise Adam, ratio to dense Adam", spread([by_rows / whole]), SAME_QUALITY
    )
    return Row(
        f"NDCG@10 (full), best epoch, {SEEDS} seeds, {source}",
        {way: spread(ndcg) for way, ndcg in values.items()},
        [same],
    )


def bare_loop(config: Config, data: Interactions, n_steps: int) -> Callable[[], float]:
    """Return a measurement: million samples per second of a loop over batches drawn before.

    The loop has at most `n_steps` steps.
    """
    rows = training_rows(config, data, "cpu", n_segments=1)
    generator = torch.Generator().manual_seed(0)
    drawn = itertools.islice(rows.batches(rows.shuffle(generator), 0, generator), n_steps)
    batches = [(batch.user.clone(), batch.item.clone()) for batch in drawn]
    model = build_model(config.model, data.n_users, data.n_items, torch.Generator().manual_seed(0))
    adam = torch.optim.Adam(model.parameters(), lr=config.training.learning_rate, fused=True)

    def train() -> None:
        for user, item in batches:
            adam.zero_grad()
            torch.autograd.backward(bce(model(user, item)).mean())
            adam.step()

    return rate(train, sum(item.numel() for _, item in batches) / 1e6)


if __name__ == "__main__":
    run("training", measure)
