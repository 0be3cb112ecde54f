"""A whole search by its command, with MLflow, on the embedded data.

It has 32 trials of at most 8 epochs, two at a time. The limit is the time that the trials
themselves work, divided by the two slots.
"""

import sqlite3
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.commands import preprocess, tune
from benchmarks.measure import Row, Target, ratios, run, spread

REPEATS = 3
SPACE = Path(__file__).parents[1] / "search_spaces" / "ncf.yaml"


def measure() -> Iterator[Row]:
    """Measure the search three times, on data that are already prepared."""
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        preprocess(folder)
        walls, limits, rates, firsts, totals = [], [], [], [], []
        for repeat in range(REPEATS):
            began = time.time()
            flags = [
                "--trials",
                "32",
                "--max-epochs",
                "8",
                "--concurrent",
                "2",
                "--set",
                f"study.seed={repeat}",
            ]
            answer = tune(folder, SPACE, *flags).output
            walls.append(answer["wall_seconds"])
            limits.append(answer["busy_seconds"] / answer["concurrency"])
            rates.append(
                sum(trial["epochs"] for trial in answer["trials"]) / answer["wall_seconds"]
            )
            totals.append(answer["total_seconds"])
            firsts.append(_first_epoch(folder / "mlflow.db", began) - began)
        yield Row(
            "32 trials, at most 8 epochs, 2 at a time",
            {
                "wall seconds": spread(walls),
                "busy seconds / 2": spread(limits),
                "epochs per second": spread(rates),
                "command to first epoch, seconds": spread(firsts),
                "whole command, seconds": spread(totals),
            },
            [
                Target("wall over busy / 2", ratios(walls, limits), 1.15, at_least=False),
                Target("command to first epoch, seconds", spread(firsts), 10.0, at_least=False),
            ],
        )


def _first_epoch(database: Path, since: float) -> float:
    """Return the time of the first epoch that MLflow stored after `since`, in Unix seconds."""
    with sqlite3.connect(database) as connection:
        query = "SELECT MIN(timestamp) FROM metrics WHERE key = 'train_seconds' AND timestamp >= ?"
        (first,) = connection.execute(query, (int(since * 1000),)).fetchone()
    return float(first) / 1000


if __name__ == "__main__":
    run("search", measure)
