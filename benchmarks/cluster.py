"""Cost of a search to its driver by the cluster's size, and of the data to the object stores.

`python -m benchmarks.cluster` writes the figures into docs/scaling.md. Everything but the workers
is real: Tune, one placement group per trial, the record, the outbox and MLflow. One process
replaces all workers, because a thousand workers would need a thousand times its memory. It answers
at once, so the driver never waits, and the measured rate is the most that the driver can handle.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import ray
from ray.air.execution.resources.request import AcquiredResources
from ray.cluster_utils import Cluster

from benchmarks.interactions import draw_index, make_interactions
from benchmarks.machine import describe_machine
from benchmarks.measure import Row, figure, seconds, spread
from benchmarks.memory import peak_megabytes, tree_megabytes
from benchmarks.preprocessing import in_a_process
from benchmarks.stand_ins import StandIn, Workers
from recsys.config.files import read_yaml
from recsys.config.schema import Config, replace_values
from recsys.data.preprocessing.pipeline import prepare
from recsys.search import session
from recsys.search.costs.work import EpochSeconds
from recsys.search.plan import make_plan
from recsys.search.record.study_folder import StudyFolder
from recsys.search.record.study_record import StudyRecord
from recsys.search.sampling import samplers
from recsys.search.space.space_file import parse_space

PAGE = Path(__file__).parents[1] / "docs" / "scaling.md"
BEGIN, END = "<!-- measured: begin -->\n", "<!-- measured: end -->"
IN_FLIGHT = (10, 100, 1_000)
NODES = (1, 8)
RESULTS = 4_000
"""Results that a longer search adds, to separate the cost of a result from that of a trial."""
PROPOSALS = (100, 1_000, 10_000)
"""Trials that have ended before the one that is proposed."""
DATA = ((1_000_000, 100_000, 10_000_000), (1_000_000, 100_000, 20_000_000))
"""Users, items and interactions."""
SPACE = {
    "parameters": {
        "model.embedding_dim": {"low": 2, "high": 128},
        "training.learning_rate": {"low": 1e-4, "high": 1e-1, "log": True},
    }
}


def drive(n_trials: int, n_epochs: int, n_nodes: int, folder: Path) -> dict[str, float]:
    """Run a search whose `n_trials` trials all run at a time, and return its cost to the driver.

    Returns:
        `wall` and `busy` in seconds of the clock and of CPU; `driver` and `gcs`: peak memory in MB.
    """
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 4, "include_dashboard": False}
    )
    for _ in range(n_nodes):
        cluster.add_node(
            num_cpus=1, resources={"slot": n_trials // n_nodes}, object_store_memory=100_000_000
        )
    ray.init(address=cluster.address, log_to_driver=False)
    workers = ray.remote(num_cpus=0)(Workers).remote(n_epochs)  # type: ignore[attr-defined]
    numbers = iter(range(10 * n_trials))
    ray.kill = lambda _actor: None  # Tune kills a worker that does not stop within 5 s
    AcquiredResources.annotate_remote_entities = lambda *_: [StandIn(workers, next(numbers))]  # type: ignore[method-assign, assignment]
    config = replace_values(
        Config(),
        {
            "data.source": str(_write_ratings(folder)),
            "training.max_epochs": n_epochs,
            "resources.cpu": 1e-4,
            "resources.custom": {"slot": 1},
            "study.n_trials": n_trials,
            "study.grace_period": n_epochs,
            "study.sampler": "random",
        },
    )
    plan = make_plan(
        StudyFolder.find(folder, "s"),
        folder,
        config,
        parse_space(SPACE, "space"),
        prepare(config, folder),
    )
    before, wall = time.process_time(), time.perf_counter()
    answer = session.run(plan).answer
    wall, busy = time.perf_counter() - wall, time.process_time() - before
    assert answer["counts"]["complete"] == n_trials, answer["counts"]
    gcs = [peak for _, name, peak, _ in tree_megabytes(os.getpid()) if "gcs_server" in name]
    ray.shutdown()
    cluster.shutdown()
    return {"wall": wall, "busy": busy, "driver": peak_megabytes(), "gcs": max(gcs, default=0.0)}


def _write_ratings(folder: Path) -> Path:
    random = np.random.default_rng(0)
    items = np.concatenate([random.choice(80, 15, replace=False) for _ in range(60)])
    data = folder / "tiny.csv"
    pd.DataFrame(
        {"user_id": np.repeat(np.arange(60), 15), "item_id": items, "timestamp": np.arange(900)}
    ).to_csv(data, index=False)
    return data


def _driver(n_trials: int, n_nodes: int) -> Row:
    runs, more_epochs = [], RESULTS // n_trials
    for n_epochs in (1, 1 + more_epochs):
        with tempfile.TemporaryDirectory() as folder:
            runs.append(in_a_process(drive, n_trials, n_epochs, n_nodes, Path(folder)))
    (short, long), more = runs, n_trials * more_epochs
    a_result = {kind: (long[kind] - short[kind]) / more for kind in ("busy", "wall")}
    values = {
        "results per second": more / (long["wall"] - short["wall"]),
        "CPU ms per result": 1e3 * a_result["busy"],
        "further CPU ms per trial": 1e3 * (short["busy"] / n_trials - a_result["busy"]),
        "driver MB": long["driver"],
        "gcs_server MB": long["gcs"],
    }
    spreads = {name: spread([value]) for name, value in values.items()}
    return Row(
        f"{n_trials:,} trials at a time, {n_nodes} node{'s' if n_nodes > 1 else ''}", spreads
    )


class _SameTime:
    """Prediction of the same time for all configs."""

    is_measured = True

    def predict(self, config: Config) -> EpochSeconds:
        """Return one second."""
        return EpochSeconds(1.0, 0.0)


def propose(n_trials: int) -> float:
    """Return the seconds that a proposal from the whole space takes after `n_trials`."""
    file = Path(__file__).parents[1] / "search_spaces" / "ncf.yaml"
    random = optuna.create_study(sampler=samplers.random(0), direction="maximize")
    record = StudyRecord(random, Config(), parse_space(read_yaml(file), str(file)))
    for _ in range(n_trials):
        number, _ = record.ask()
        record.report(number, 1, number * 37 % 101 / 101, {})
        record.finish(number, "complete")
    record.use(samplers.make_sampler(Config(), record, _SameTime()))
    return statistics.median(seconds(record.ask) for _ in range(5))


def store_bytes(n_users: int, n_items: int, n_interactions: int) -> tuple[int, int]:
    """Return the number of distinct interactions and the bytes they take in an object store."""
    index = draw_index(n_users, n_items, n_interactions)
    data = make_interactions(index, len(index.items), 1)
    ray.init(
        "local",
        num_cpus=1,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=2_000_000_000,
    )
    reference = ray.put(data)
    return len(data.user), ray.experimental.get_object_locations([reference])[reference][
        "object_size"
    ]


def _data(sizes: tuple[int, int, int]) -> Row:
    n_pairs, size = in_a_process(store_bytes, *sizes)
    values = {"MB": size / 1e6, "bytes per interaction": size / n_pairs}
    return Row(
        f"{n_pairs:,} interactions", {name: spread([value]) for name, value in values.items()}
    )


def measure(in_flight: Sequence[int]) -> Iterator[Row]:
    """Measure the driver by concurrency and nodes, the sampler by earlier trials, and the data."""
    for n_trials in in_flight:
        yield _driver(n_trials, 1)
    for n_nodes in NODES[1:]:
        yield _driver(in_flight[min(1, len(in_flight) - 1)], n_nodes)
    for n_trials in PROPOSALS:
        yield Row(
            f"{n_trials:,} trials before",
            {
                f"seconds per proposal ({Config().study.sampler})": spread(
                    [in_a_process(propose, n_trials)]
                )
            },
        )
    for sizes in DATA:
        yield _data(sizes)


def main() -> None:
    """Measure, print, and write the figures into the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster")
    parser.add_argument(
        "in_flight", type=int, nargs="*", default=IN_FLIGHT, help="trials at a time"
    )
    tables: dict[tuple[str, ...], list[str]] = {}
    for row in measure(parser.parse_args().in_flight):
        sys.stdout.write(
            f"{row.case}: {', '.join(f'{name} {value}' for name, value in row.values.items())}\n"
        )
        sys.stdout.flush()
        names = tuple(row.values)
        lines = tables.setdefault(
            names, [f"| | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
        )
        lines.append(
            f"| {row.case} | {' | '.join(figure(value.median) for value in row.values.values())} |"
        )
    machine = ", ".join(f"{name} {value}" for name, value in describe_machine().items())
    text = "\n".join(
        [f"Measured on: {machine}.", *("\n" + "\n".join(lines) for lines in tables.values())]
    )
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{text}\n\n{END}{rest.split(END)[1]}", encoding="utf-8")


if __name__ == "__main__":
    main()
