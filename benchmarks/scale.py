"""A search with one and with two trials at a time, and with 64 to 1,000 trivial trials."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.commands import preprocess, tune
from benchmarks.measure import Row, Target, ratios, run, spread

REPEATS = 2
SAME_TRIALS = """
parameters:
  training.patience: {choices: [50, 51, 52, 53]}
"""
TRIVIAL_TRIALS = """
parameters:
  model.embedding_dim: {low: 2, high: 8}
  training.learning_rate: {low: 1e-4, high: 1e-1, log: true}
"""


def measure() -> Iterator[Row]:
    """Measure the concurrency on the embedded data, then many trials on 60 users."""
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        yield _concurrency(folder)
        yield from _many_trials(folder)


def _concurrency(folder: Path) -> Row:
    """Measure eight trials that do the same work, none of which is pruned."""
    space = folder / "same.yaml"
    space.write_text(SAME_TRIALS)
    preprocess(folder)
    walls: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(REPEATS):
        for concurrent, seconds in walls.items():
            flags = ["--trials", "8", "--max-epochs", "10", "--concurrent", str(concurrent)]
            settings = [
                "--set",
                "study.grace_period=100",
                "--set",
                "training.batch_size=256",
                "--set",
                "study.sampler=random",
            ]
            seconds.append(tune(folder, space, *flags, *settings).output["wall_seconds"])
    speedup = ratios(walls[1], walls[2])
    values = {
        "wall seconds, 1 at a time": spread(walls[1]),
        "2 at a time": spread(walls[2]),
        "speed-up": speedup,
    }
    return Row("1 to 2 trials at a time", values, [Target("speed-up", speedup, 1.8)])


def _many_trials(folder: Path) -> Iterator[Row]:
    space, data = folder / "trivial.yaml", folder / "tiny.csv"
    space.write_text(TRIVIAL_TRIALS)
    random = np.random.default_rng(0)
    items = np.concatenate([random.choice(80, 15, replace=False) for _ in range(60)])
    pd.DataFrame(
        {"user_id": np.repeat(np.arange(60), 15), "item_id": items, "timestamp": np.arange(900)}
    ).to_csv(data, index=False)
    a_trial, peaks = {}, {}
    for n_trials in (64, 512, 1_000):
        flags = ["--data", str(data), "--trials", str(n_trials), "--max-epochs", "1"]
        answer = tune(folder, space, *flags)
        a_trial[n_trials], peaks[n_trials] = answer.output["wall_seconds"] / n_trials, answer.own
        values = {
            "seconds per trial": spread([a_trial[n_trials]]),
            "driver MB": spread([peaks[n_trials]]),
        }
        yield Row(f"{n_trials:,} trivial trials", values, at={"trials": n_trials})
    growth = {
        "seconds per trial": spread([a_trial[1_000] / a_trial[64]]),
        "driver MB": spread([peaks[1_000] / peaks[64]]),
    }
    yield Row(
        "1,000 over 64 trials",
        growth,
        [Target(name, value, 1.2, at_least=False) for name, value in growth.items()],
    )


if __name__ == "__main__":
    run("scale", measure)
