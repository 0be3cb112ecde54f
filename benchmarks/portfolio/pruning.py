"""Replay successive halving over the recorded runs: how early may a trial be pruned?

The configs run in random orders on two slots, with the recorded values and seconds. Prints the
rank correlation of the values after some epochs with the best ones, and the mean regret of each
first rung and reduction factor (docs/decisions/0042).
"""

import heapq
import itertools
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmarks.portfolio.tables import Tables

N_EPOCHS, N_SLOTS, N_ORDERS = 20, 2, 100
FIRST_RUNGS, FACTORS = (1, 2, 3, 4, 6, N_EPOCHS), (2, 3, 4)
SHARES = (0.1, 0.2, 0.4, 0.7)
"""Times at which regret counts, as shares of the time that all runs take to their ends."""
_Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """Values of a run, and its seconds so far, after each epoch: both (n_epochs,)."""

    values: _Array
    seconds: _Array


def curve_of(run: pd.DataFrame) -> Curve:
    """Return a recorded run, interpolated; one that was cut keeps its last value and speed."""
    run = run.sort_values("epoch")
    epochs, last = np.arange(1, N_EPOCHS + 1), run["epoch"].max()
    spent = (run["train_seconds"] + run["rank_seconds"]).to_numpy()
    values = np.interp(np.log(epochs), np.log(run["epoch"]), run["value"])
    seconds = np.interp(epochs, [0, *run["epoch"]], [0, *spent])
    return Curve(values, np.where(epochs > last, spent[-1] / last * epochs, seconds))


def search(
    curves: Mapping[int, Curve], order: Iterable[int], first_rung: int, factor: int
) -> list[tuple[float, float]]:
    """Run the configs in an order; return the seconds and the value of each report in time order.

    A trial survives a rung if it is among the best 1 / factor there, or the best.
    """
    rungs = list(itertools.takewhile(lambda epoch: epoch < N_EPOCHS, _powers(first_rung, factor)))
    at_rung: dict[int, list[float]] = {rung: [] for rung in rungs}
    waiting, reports = iter(order), list[tuple[float, float]]()
    events: list[tuple[float, int, int, float]] = []  # seconds, config, epoch, seconds at its start

    def start(now: float) -> None:
        if (number := next(waiting, None)) is not None:
            heapq.heappush(events, (now + curves[number].seconds[0], number, 1, now))

    for _ in range(N_SLOTS):
        start(0.0)
    while events:
        now, number, epoch, begun = heapq.heappop(events)
        value = float(curves[number].values[epoch - 1])
        reports.append((now, value))
        survives = epoch < N_EPOCHS
        if survives and epoch in at_rung:
            at_rung[epoch].append(value)
            n_better = sum(other > value for other in at_rung[epoch])
            survives = n_better < max(1, len(at_rung[epoch]) // factor)
        if survives:
            end = begun + curves[number].seconds[epoch]
            heapq.heappush(events, (end, number, epoch + 1, begun))
        else:
            start(now)
    return reports


def _powers(first: int, factor: int) -> Iterable[int]:
    return (first * factor**power for power in itertools.count())


def regrets(curves: Mapping[int, Curve], first_rung: int, factor: int, seed: int) -> _Array:
    """Return the regret at each of `SHARES` in each order, (N_ORDERS, len(SHARES)).

    It is 0 for the best config and 1 for the median one. The orders are drawn by `seed`.
    """
    best_values = [curve.values.max() for curve in curves.values()]
    best, median = max(best_values), float(np.median(best_values))
    total = sum(curve.seconds[-1] for curve in curves.values()) / N_SLOTS
    rng, found = np.random.default_rng(seed), []
    for _ in range(N_ORDERS):
        order = [int(number) for number in rng.permutation(list(curves))]
        reports = search(curves, order, first_rung, factor)
        tops = [
            max((value for now, value in reports if now <= share * total), default=median)
            for share in SHARES
        ]
        found.append([min(1.0, (best - top) / (best - median)) for top in tops])
    return np.array(found)


def correlation(runs: pd.DataFrame, epoch: int) -> float:
    """Return Spearman's rho of the values after an epoch and the best ones of a data set."""
    after = runs[runs["epoch"] == epoch].set_index("number")["value"]
    best = runs.groupby("number")["value"].max().loc[after.index]
    return float(after.rank().corr(best.rank()))


def _ratio(some: _Array, others: _Array) -> tuple[float, float, float]:
    """Return the ratio of two mean regrets, (n_sets, n_orders), and its 95% bootstrap interval."""
    rng, ratios = np.random.default_rng(1), []
    n_sets, n_orders = some.shape
    for _ in range(4000):
        sets = rng.integers(0, n_sets, (n_sets, 1))
        orders = rng.integers(0, n_orders, (n_sets, n_orders))
        ratios.append(some[sets, orders].mean() / others[sets, orders].mean())
    low, high = np.percentile(ratios, [2.5, 97.5])
    return float(some.mean() / others.mean()), float(low), float(high)


def main() -> None:
    """Print the correlations and the regrets."""
    runs = Tables.read().runs.dropna(subset=["value"])
    by_set: dict[str, Any] = dict(list(runs.groupby("set")))
    for epoch in (1, 2, 4, 7):
        rho = np.mean([correlation(of_set, epoch) for of_set in by_set.values()])
        sys.stdout.write(f"after {epoch}: rho {rho:.2f}\n")
    curves = [
        {int(number): curve_of(run) for number, run in of_set.groupby("number")}
        for of_set in by_set.values()
    ]
    found = {
        (first, factor): np.stack(
            [regrets(of_set, first, factor, seed) for seed, of_set in enumerate(curves)]
        )
        for first in FIRST_RUNGS
        for factor in FACTORS
    }
    before = found[1, 3].mean(axis=2)
    for (first, factor), regret in found.items():
        at = " ".join(f"{value:.3f}" for value in regret.mean(axis=(0, 1)))
        ratio, low, high = _ratio(regret.mean(axis=2), before)
        sys.stdout.write(
            f"{first} epochs, {factor}: {at} | mean {regret.mean():.3f} | "
            f"{ratio:.2f} ({low:.2f} to {high:.2f}) times that of 1 epoch, 3\n"
        )
    for name, was, now in zip(by_set, before, found[4, 3].mean(axis=2), strict=True):
        sys.stdout.write(f"{name}: {was.mean():.2f} with 1 epoch, {now.mean():.2f} with 4\n")


if __name__ == "__main__":
    main()
