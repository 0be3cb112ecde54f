"""Choose the starting configs of a search from the recorded runs, greedily, with their cost.

Each data set has the same say: values become scores between 1, the best of the table, and 0, the
median config. The configs of an order run as a search runs them (`pruning.search`), and the loss of
the order is the mean of 1 - the best score so far over the logarithm of time. The next config is
the one that lowers the mean loss most.

A new data set is like one of the table, but not equal to it. So an order is chosen for copies of
each data set, in which the scores of families and of configs are shifted at random.
"""

import argparse
import json
import sys
from collections.abc import Container, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from benchmarks.portfolio.configs import family, proposed_for
from benchmarks.portfolio.pruning import N_SLOTS, Curve, curve_of, search
from benchmarks.portfolio.tables import Tables

FIRST_SECONDS, LAST_SECONDS = 10.0, 600.0
"""Times between which the loss counts: the start of a search."""
FIRST_RUNG, FACTOR = 4, 3
N_STARTS = 10
N_COPIES = 12
FAMILY_SHIFT, SHIFT = 0.2, 0.1
"""Standard deviations of the shifts of a copy: of all configs of a family, and of each one."""
EARLIER = (2, 1, 0)
"""The earlier warm starts and the default config, in the tables."""
Family = tuple[str, ...]
Curves = Mapping[int, Curve]
"""Scores and seconds of the configs on a data set, by number."""


def scores(runs: pd.DataFrame) -> dict[str, dict[int, Curve]]:
    """Return the curves of each data set, as scores. Runs that diverged are not in them."""
    found = {}
    for name, of_set in runs.dropna(subset=["value"]).groupby("set"):
        curves = {int(number): curve_of(run) for number, run in of_set.groupby("number")}
        best = [curve.values.max() for curve in curves.values()]
        scale = max(best) - float(np.median(best))
        found[str(name)] = {
            number: replace(curve, values=1 + (curve.values - max(best)) / scale)
            for number, curve in curves.items()
        }
    return found


def copies(curves: Curves, families: Sequence[Family], name: str, n: int) -> list[Curves]:
    """Return copies of a data set with shifted scores, of which the best is 1.

    Args:
        curves: the data set.
        families: the family of each config.
        name: seeds the shifts.
        n: the number of copies.
    """
    rng = np.random.default_rng([ord(letter) for letter in name])
    found = list[Curves]()
    for _ in range(n):
        of_family = {of: rng.normal(0, FAMILY_SHIFT) for of in sorted(set(families))}
        shifts = {number: of_family[families[number]] + rng.normal(0, SHIFT) for number in curves}
        shifted = {
            number: replace(curve, values=curve.values + shifts[number])
            for number, curve in curves.items()
        }
        best = max(curve.values.max() for curve in shifted.values())
        found.append(
            {number: replace(c, values=c.values + 1 - best) for number, c in shifted.items()}
        )
    return found


def loss(curves: Curves, order: Sequence[int]) -> float:
    """Return the mean regret over log-time of a search that runs an order of configs.

    A config that diverged on the data set is left out.
    """
    reports = search(curves, [number for number in order if number in curves], FIRST_RUNG, FACTOR)
    seconds = np.clip([now for now, _ in reports], FIRST_SECONDS, LAST_SECONDS)
    times = np.log(np.r_[FIRST_SECONDS, seconds, LAST_SECONDS])
    best = np.maximum.accumulate(np.r_[0.0, [score for _, score in reports]])
    return float(np.diff(times) @ (1 - best) / (times[-1] - times[0]))


def choose(data: Sequence[Curves], n: int, without: Container[int]) -> list[int]:
    """Return up to `n` configs in the order in which they run, none of them in `without`."""
    order: list[int] = []
    numbers = sorted({number for curves in data for number in curves if number not in without})
    while len(order) < min(n, len(numbers)):
        losses = {
            number: np.mean([loss(curves, [*order, number]) for curves in data])
            for number in numbers
            if number not in order
        }
        order.append(min(losses, key=losses.__getitem__))
    return order


def left(curves: Curves, order: Sequence[int]) -> float:
    """Return the regret of the best config of an order, trained to its end."""
    return 1 - max(float(curves[number].values.max()) for number in order if number in curves)


def main() -> None:
    """Print the starts, and what each data set loses with those chosen on the others."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--starts", type=int, default=N_STARTS)
    options = parser.parse_args()
    tables = Tables.read()
    data = scores(tables.runs)
    families = [family(config) for config in tables.configs]
    shifted = {name: copies(curves, families, name, N_COPIES) for name, curves in data.items()}
    sys.stdout.write(f"{len(tables.configs)} configs, {N_SLOTS} at a time\n")
    sys.stdout.write(
        "| left out | loss, earlier | loss, portfolio | end, earlier | end, portfolio |\n"
    )
    sys.stdout.write("|---|---|---|---|---|\n")
    for name, curves in data.items():
        seen = [copy for other in data if other != name for copy in shifted[other]]
        proposed = proposed_for(name, len(tables.configs))
        order = choose(seen, options.starts, without=proposed)
        figures = [measure(curves, of) for measure in (loss, left) for of in (EARLIER, order)]
        sys.stdout.write(f"| {name} | {' | '.join(f'{figure:.3f}' for figure in figures)} |\n")
        sys.stdout.flush()
    every = [copy for of_set in shifted.values() for copy in of_set]
    for number in choose(every, options.starts, without=()):
        sys.stdout.write(f"{number}: {json.dumps(tables.configs[number])}\n")


if __name__ == "__main__":
    main()
