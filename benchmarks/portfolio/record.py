"""Record how the configs train on the data sets: values and seconds after some of the epochs.

A config runs on all data sets before the next one starts, so that the tables can be used at any
time. A run that is in the tables is not repeated. Each process runs on one thread, and times are of
the process, so that other work on the machine counts little.
"""

import argparse
import functools
import itertools
import multiprocessing
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.portfolio.configs import N_SAMPLED, propose, sampled_configs, set_of
from benchmarks.portfolio.tables import Tables
from benchmarks.shapes import SHAPES, write_shape
from recsys.config.files import load_config
from recsys.config.schema import Config, replace_values
from recsys.data.interactions import HeldOut, Interactions
from recsys.data.preprocessing import pipeline
from recsys.data.processed import load
from recsys.data.resolve import resolve
from recsys.errors import DivergenceError
from recsys.evaluation.evaluate import evaluate, sample_users
from recsys.evaluation.scorers import scorer_of
from recsys.search.choose_space import NEED_TIMES
from recsys.search.space.search_space import SearchSpace
from recsys.search.space.space_file import read_space
from recsys.training.fit import fit

SPACE = Path(__file__).parents[2] / "search_spaces" / "ncf.yaml"
RANKED_EPOCHS = (1, 2, 4, 7, 12, 20)
N_USERS, N_FEW_USERS = 2_000, 250
"""Validation users that are ranked; those of the cheap value beside it."""
CAP_SECONDS = 25.0
"""Time after which a run ends."""
HOPELESS, HOPELESS_EPOCH = 0.35, 4
"""A run that has less than this share of the best value so far from this epoch on ends."""


def record(config: Config, data: Interactions, best: float) -> Iterator[dict[str, Any]]:
    """Train and yield a row for each ranked epoch; none for a run that diverges at once.

    `best`: the best value of the data set so far.
    """
    assert data.held_out is not None
    users = sample_users(data.held_out, N_USERS, 0)
    few = sample_users(users, N_FEW_USERS, 0)
    train_seconds = rank_seconds = 0.0
    steps = fit(config, data, seed=0, n_epochs=RANKED_EPOCHS[-1], rank=False)
    for epoch in itertools.count(1):
        start = time.process_time()
        try:
            state = next(steps).state
        except DivergenceError:
            return
        train_seconds += time.process_time() - start
        is_over = train_seconds + rank_seconds > CAP_SECONDS
        if epoch not in RANKED_EPOCHS and not is_over:
            continue
        start = time.process_time()
        value = _value(state.model, data, users, config)
        rank_seconds += time.process_time() - start
        yield {
            "epoch": epoch,
            "value": value,
            "value_few_users": _value(state.model, data, few, config),
            "train_seconds": train_seconds,
            "rank_seconds": rank_seconds,
        }
        is_hopeless = epoch >= HOPELESS_EPOCH and value < HOPELESS * best
        if is_over or is_hopeless or epoch == RANKED_EPOCHS[-1]:
            return


def _value(model: Any, data: Interactions, held_out: HeldOut, config: Config) -> float:
    """Return the searched metric on the held-out interactions of some users."""
    ranked = replace(data, held_out=held_out)
    return evaluate(scorer_of(model, ranked), ranked, config)[
        config.metric_name.removeprefix("val_")
    ]


def run(
    name: str, public: Path, folder: Path, values: Mapping[str, Any], best: float
) -> list[dict[str, Any]]:
    """Return the rows of a config on a data set, in a process of the pool."""
    torch.set_num_threads(1)
    base, data = prepared(name, public, folder)
    rows = list(record(replace_values(base, values), data, best))
    return rows or [{"epoch": 0, "value": np.nan}]


@functools.cache
def prepared(name: str, public: Path, folder: Path) -> tuple[Config, Interactions]:
    """Return the resolved config of a data set, and its data with validation held out."""
    _, path = write_shape(name, public, folder / "shapes" / name)
    base = load_config(path)
    processed = pipeline.prepare(base, folder)
    return resolve(base, processed.manifest), load(processed, "validation", negatives=False)


def main() -> None:
    """Run what is not in the tables yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--public", type=Path, required=True, help="folder of public data sets")
    parser.add_argument("--dir", type=Path, required=True, dest="folder")
    parser.add_argument("--configs", type=int, default=100)
    parser.add_argument("--processes", type=int, default=1)
    options = parser.parse_args()
    space = read_space(SPACE).fixed(NEED_TIMES, Config())
    for name in SHAPES:
        prepared(name, options.public, options.folder)
    tables = Tables.read()
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.processes, mp_context=spawn) as pool:
        for number in range(options.configs):
            if number == len(tables.configs):
                tables.add_config(_next_config(space, tables))
            values = tables.configs[number]
            runs = {
                name: pool.submit(
                    run, name, options.public, options.folder, values, tables.best(name)
                )
                for name in SHAPES
                if not tables.has(number, name)
            }
            for name, rows in runs.items():
                tables.add_run(number, name, rows.result())
                sys.stdout.write(f"{number} {name}: {rows.result()[-1]} {values}\n")
                sys.stdout.flush()


def _next_config(space: SearchSpace, tables: Tables) -> dict[str, Any]:
    """Return a sampled config, or TPE's proposal for the next data set."""
    number = len(tables.configs)
    if number < N_SAMPLED:
        return next(itertools.islice(sampled_configs(space), number, None))
    return propose(space, tables.configs, tables.values(set_of(number)))


if __name__ == "__main__":
    main()
