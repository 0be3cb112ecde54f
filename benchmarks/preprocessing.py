"""Preprocessing, beside the same work as one polars program.

The data are synthetic ratings with a skewed popularity, in several Parquet files. Each size is
prepared in a process of its own, whose peak memory is the driver's. The clock starts after
`ray.init`.
"""

import multiprocessing
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.measure import Row, Target, ratios, run, seconds, spread
from benchmarks.memory import peak_megabytes
from recsys.cluster.connection import connect
from recsys.config.schema import Config, replace_values
from recsys.data.negatives import NegativeSampler, index_pairs
from recsys.data.preprocessing import pipeline

FILE_ROWS = 1_000_000
Result = TypeVar("Result")

SAME_MEMORY = 1.2
"""Bound that allows for the ids of five times the users."""
REPEATS = {100_000: 3, 1_000_000: 3, 10_000_000: 3, 50_000_000: 1}


def write_ratings(folder: Path, n_rows: int) -> None:
    """Write Parquet files of user_id, item_id, rating and timestamp.

    Users and items follow a power law; some pairs are repeated.
    """
    random = np.random.default_rng(0)
    n_users, n_items = max(1_000, n_rows // 150), min(60_000, max(2_000, n_rows // 400))
    folder.mkdir(parents=True)
    for number, start in enumerate(range(0, n_rows, FILE_ROWS)):
        n = min(FILE_ROWS, n_rows - start)
        table = {
            "user_id": (n_users * random.random(n) ** 1.5).astype(np.int64) + 1,
            "item_id": (n_items * random.random(n) ** 3).astype(np.int64) + 1,
            "rating": random.integers(1, 11, n) / 2,
            "timestamp": random.integers(1_000_000_000, 1_700_000_000, n),
        }
        pq.write_table(pa.table(table), folder / f"part-{number:04d}.parquet")


def prepare_with_polars(source: Path, target: Path) -> None:
    """Prepare the data as recsys does, in one program.

    Read, binarise, encode, drop duplicates, split by leave-one-out, draw 4 negatives per training
    positive, write.
    """
    rows = pl.read_parquet(source / "*.parquet")
    sizes = []
    # A join with the sorted ids takes half the time of `rank("dense")`.
    for name in ("user", "item"):
        ids = rows[f"{name}_id"].unique().sort()
        codes = pl.DataFrame({f"{name}_id": ids, name: np.arange(len(ids), dtype=np.int32)})
        rows = rows.join(codes, on=f"{name}_id", how="left").drop(f"{name}_id")
        sizes.append(len(ids))
    rows = (
        rows.with_columns(positive=pl.col("rating") >= 4.0)
        .drop("rating")
        .sort("user", "item", "timestamp")
    )
    repeated = (pl.col("user") == pl.col("user").shift(-1)) & (
        pl.col("item") == pl.col("item").shift(-1)
    )
    rows = rows.filter(~repeated.fill_null(False))
    # Sorting by user and time and counting takes a tenth of the time of `rank().over("user")`.
    positives = rows.filter("positive").sort("user", "timestamp", maintain_order=True)
    n_of_user, index = pl.len().over("user").cast(pl.Int64), pl.int_range(pl.len()).over("user")
    split = pl.when(n_of_user < 3).then(0).otherwise(pl.max_horizontal(0, index - n_of_user + 3))
    positives = positives.with_columns(split=split).sort("user", "item")
    train, validation, test = (
        positives.filter(pl.col("split") == code).select("user", "item") for code in range(3)
    )
    low = rows.filter(~pl.col("positive")).select("user", "item")
    seen = pl.concat([train, low])
    sampler = NegativeSampler(index_pairs(seen["user"].to_numpy(), seen["item"].to_numpy(), *sizes))
    negatives = sampler.sample(
        train["user"].to_numpy().astype(np.int64), 4, np.random.default_rng(0)
    ).astype(np.int32)
    target.mkdir(parents=True)
    train = train.with_columns(negatives=pl.Series(negatives))
    for name, frame in {"train": train, "validation": validation, "test": test, "low": low}.items():
        frame.write_parquet(target / f"{name}.parquet")


def measure() -> Iterator[Row]:
    """Measure sizes from 100 k to 50 M ratings."""
    peaks = {}
    for n_rows, repeats in REPEATS.items():
        with tempfile.TemporaryDirectory() as root:
            row = _measure_size(Path(root), n_rows, repeats)
        peaks[n_rows] = row.values["driver MB"].maximum
        yield row
    growth = spread([peaks[50_000_000] / peaks[10_000_000]])
    yield Row(
        "driver memory, 50 M over 10 M",
        {"ratio": growth},
        [Target("ratio", growth, SAME_MEMORY, at_least=False)],
    )


def _measure_size(root: Path, n_rows: int, repeats: int) -> Row:
    source = root / "ratings"
    in_a_process(write_ratings, source, n_rows)
    ours, again, peaks, theirs = [], [], [], []
    for repeat in range(repeats):
        first, second, peak = in_a_process(_prepare, source, root / f"ours-{repeat}")
        ours.append(first)
        again.append(second)
        peaks.append(peak)
        theirs.append(in_a_process(_time_polars, source, root / f"polars-{repeat}"))
    values = {
        "seconds": ours,
        "polars, seconds": theirs,
        "a second run, seconds": again,
        "driver MB": peaks,
    }
    spreads = {name: spread(numbers) for name, numbers in values.items()}
    return Row(
        f"{n_rows:,} ratings", spreads, _targets(n_rows, ours, theirs, again), {"ratings": n_rows}
    )


def _targets(
    n_rows: int, ours: list[float], theirs: list[float], again: list[float]
) -> list[Target]:
    targets = [Target("a second run, seconds", spread(again), 0.5, at_least=False)]
    if n_rows == 100_000:
        targets.append(Target("seconds", spread(ours), 8.0, at_least=False))
    if n_rows == 10_000_000:
        targets.append(Target("seconds over polars", ratios(ours, theirs), 2.0, at_least=False))
    return targets


def in_a_process(work: Callable[..., Result], *arguments: object) -> Result:
    """Return the result of `work` in a new process, so that its memory is freed afterwards."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def _prepare(source: Path, folder: Path) -> tuple[float, float, float]:
    """Return the seconds of a first and of a second run, and the driver's peak memory in MB."""
    config = replace_values(Config(), {"data.source": str(source)})
    connect(config)
    first = seconds(lambda: pipeline.prepare(config, folder))
    return first, seconds(lambda: pipeline.prepare(config, folder)), peak_megabytes()


def _time_polars(source: Path, target: Path) -> float:
    return seconds(lambda: prepare_with_polars(source, target))


if __name__ == "__main__":
    run("preprocessing", measure)
