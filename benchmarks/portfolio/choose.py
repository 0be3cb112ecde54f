"""Choose the starting configs of a search from the recorded runs, greedily, with their cost.

Each data set has the same say: values become regrets between 0, the best of the table, and 1, the
median config. The configs run one after another, and the loss of an order is the area under the
regret of the best so far, over the logarithm of time. The next config is the one that lowers it
most.
"""

import argparse
import json
import sys
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmarks.portfolio.tables import Tables

FIRST_SECONDS, LAST_SECONDS = 10.0, 1200.0
"""Times between which regret counts: the start of a search, ten minutes on two cores."""
N_STARTS = 10
EARLIER = (0, 1, 2)
"""The default config and the earlier warm starts, in the tables."""
_Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Table:
    """Regrets and seconds of the configs (rows) on the data sets (columns), both (n, n_sets).

    A run that diverged has the regret 1. Only configs that have run on all data sets are in it;
    `numbers` (n,) are their numbers.
    """

    numbers: npt.NDArray[np.int64]
    sets: tuple[str, ...]
    regret: _Array
    seconds: _Array


def regrets(runs: pd.DataFrame) -> Table:
    """Return the regrets of the best epochs, with the seconds of whole runs."""
    seconds = runs["train_seconds"] + runs["rank_seconds"]
    runs = runs.assign(seconds=seconds.fillna(0.0)).groupby(["number", "set"])
    value = runs["value"].max().unstack().dropna(how="all")
    whole = runs["seconds"].max().unstack().dropna().index
    value, cost = value.reindex(whole), runs["seconds"].max().unstack().loc[whole]
    best, median = value.max(), value.median()
    regret = ((best - value) / (best - median)).clip(upper=1.0).fillna(1.0)
    return Table(whole.to_numpy(np.int64), tuple(value.columns), regret.to_numpy(), cost.to_numpy())


def area(regret: _Array, seconds: _Array) -> float:
    """Return the mean regret over log-time of configs (m,) that run one after another.

    Until the first one ends the regret is 1.
    """
    ends = np.clip(np.cumsum(seconds), FIRST_SECONDS, LAST_SECONDS)
    times = np.log(np.r_[FIRST_SECONDS, ends, LAST_SECONDS])
    best = np.minimum.accumulate(np.r_[1.0, regret])
    return float(np.diff(times) @ best / (times[-1] - times[0]))


def loss(table: Table, order: list[int]) -> _Array:
    """Return the area of an order of rows on each data set, (n_sets,)."""
    columns = range(len(table.sets))
    return np.array([area(table.regret[order, c], table.seconds[order, c]) for c in columns])


def choose(table: Table, columns: list[int], n: int) -> list[int]:
    """Return up to `n` rows in the order in which they run, from these data sets alone."""
    order: list[int] = []
    while len(order) < n:
        losses = {
            row: loss(table, [*order, row])[columns].mean()
            for row in range(len(table.numbers))
            if row not in order
        }
        best = min(losses, key=losses.__getitem__)
        if order and losses[best] >= loss(table, order)[columns].mean():
            break
        order.append(best)
    return order


def main() -> None:
    """Print the starts, and what each data set loses with those chosen on the others."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--starts", type=int, default=N_STARTS)
    options = parser.parse_args()
    tables = Tables.read()
    table = regrets(tables.runs)
    earlier = [list(table.numbers).index(number) for number in EARLIER]
    sys.stdout.write(f"{len(table.numbers)} configs\n")
    sys.stdout.write(
        "| left out | area, earlier | area, portfolio | end, earlier | end, portfolio |\n"
    )
    sys.stdout.write("|---|---|---|---|---|\n")
    for column, name in enumerate(table.sets):
        others = [c for c in range(len(table.sets)) if c != column]
        order = choose(table, others, options.starts)
        before, after = (loss(table, rows)[column] for rows in (earlier, order))
        least = [table.regret[rows, column].min() for rows in (earlier, order)]
        sys.stdout.write(
            f"| {name} | {before:.3f} | {after:.3f} | {least[0]:.3f} | {least[1]:.3f} |\n"
        )
    for row in choose(table, list(range(len(table.sets))), options.starts):
        sys.stdout.write(
            f"{table.numbers[row]}: {json.dumps(tables.configs[table.numbers[row]])}\n"
        )


if __name__ == "__main__":
    main()
