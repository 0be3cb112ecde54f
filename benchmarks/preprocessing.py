"""Preprocessing against the same work as one polars program: synthetic ratings, popularity-skewed, as Parquet parts.

Each size is prepared in a process of its own, whose peak memory is the driver's; the clock starts after `ray.init`.
"""

import multiprocessing
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.measure import Row, Target, ratios, run, spread
from recsys.config import Config, replace_values
from recsys.data import pipeline
from recsys.data.negatives import NegativeSampler, index_pairs

PART_ROWS = 1_000_000
REPEATS = {100_000: 3, 1_000_000: 3, 10_000_000: 3, 50_000_000: 1}


def write_ratings(folder: Path, n_rows: int) -> None:
    """Parquet parts of user_id, item_id, rating and timestamp; users and items by a power law, with some repeated pairs."""
    random = np.random.default_rng(0)
    n_users, n_items = max(1_000, n_rows // 150), min(60_000, max(2_000, n_rows // 400))
    folder.mkdir(parents=True)
    for number, start in enumerate(range(0, n_rows, PART_ROWS)):
        n = min(PART_ROWS, n_rows - start)
        table = {
            "user_id": (n_users * random.random(n) ** 1.5).astype(np.int64) + 1,
            "item_id": (n_items * random.random(n) ** 3).astype(np.int64) + 1,
            "rating": random.integers(1, 11, n) / 2,
            "timestamp": random.integers(1_000_000_000, 1_700_000_000, n),
        }
        pq.write_table(pa.table(table), folder / f"part-{number:04d}.parquet")


def prepare_with_polars(source: Path, target: Path) -> None:
    """Read, binarise, encode, drop duplicates, split leave-one-out, draw 4 negatives a training positive, write."""
    order = ["user", "item", "timestamp"]
    rows = pl.scan_parquet(source / "*.parquet").with_columns(positive=pl.col("rating") >= 4.0)
    rows = rows.with_columns(user=pl.col("user_id").rank("dense") - 1, item=pl.col("item_id").rank("dense") - 1).collect().lazy()
    rows = rows.sort(order).unique(["user", "item"], keep="last", maintain_order=True)
    last = pl.col("timestamp").rank("ordinal", descending=True).over("user", "positive")
    enough = pl.col("positive") & (pl.len().over("user", "positive") >= 3)
    frame = rows.with_columns(
        part=pl.when(enough & (last == 1)).then(2).when(enough & (last == 2)).then(1).otherwise(0)
    ).collect()
    target.mkdir(parents=True)
    user, item = frame["user"].to_numpy(), frame["item"].to_numpy()
    known = frame["part"].to_numpy() == 0
    sampler = NegativeSampler(index_pairs(user[known], item[known], int(user.max()) + 1, int(item.max()) + 1))
    train = frame.filter((pl.col("part") == 0) & pl.col("positive"))
    negatives = sampler.sample_numpy(train["user"].to_numpy().astype(np.int64), 4, np.random.default_rng(0)).astype(np.int32)
    train.select("user", "item").with_columns(negatives=pl.Series(negatives)).write_parquet(target / "train.parquet")
    for name, code in (("validation", 1), ("test", 2)):
        frame.filter(pl.col("part") == code).select("user", "item").write_parquet(target / f"{name}.parquet")
    frame.filter(~pl.col("positive")).select("user", "item").write_parquet(target / "low.parquet")


def measure() -> Iterator[Row]:
    """Sizes from 100 k to 50 M ratings."""
    with tempfile.TemporaryDirectory() as root:
        flat = {}
        for n_rows, repeats in REPEATS.items():
            source = Path(root) / f"ratings-{n_rows}"
            write_ratings(source, n_rows)
            ours, again, peaks, theirs = [], [], [], []
            for repeat in range(repeats):
                first, second, peak = _in_process(_prepare, source, Path(root) / f"ours-{n_rows}-{repeat}")
                ours.append(first), again.append(second), peaks.append(peak)
                theirs.append(_in_process(_prepare_polars, source, Path(root) / f"polars-{n_rows}-{repeat}")[0])
            flat[n_rows] = max(peaks)
            yield Row(
                f"{n_rows:,} ratings",
                {
                    "seconds": spread(ours),
                    "polars seconds": spread(theirs),
                    "again, seconds": spread(again),
                    "driver MB": spread(peaks),
                },
                _targets(n_rows, ours, theirs, again),
            )
        growth = flat[50_000_000] / flat[10_000_000]
        yield Row("driver memory, 50 M over 10 M", {"ratio": spread([growth])}, [Target("ratio", spread([growth]), 1.2, False)])


def _targets(n_rows: int, ours: list[float], theirs: list[float], again: list[float]) -> list[Target]:
    targets = [Target("a second run, seconds", spread(again), 0.5, False)]
    if n_rows == 100_000:
        targets.append(Target("seconds", spread(ours), 8.0, False))
    if n_rows == 10_000_000:
        targets.append(Target("seconds over polars", ratios(ours, theirs), 2.0, False))
    return targets


def _in_process(work: Any, *arguments: Any) -> Any:
    """What `work` returns in a new process."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(work, arguments)


def _prepare(source: Path, folder: Path) -> tuple[float, float, float]:
    """Seconds of the first and of a second run, and the driver's peak memory in MB."""
    config = replace_values(Config(), {"data.source": str(source)})
    pipeline.connect(config)
    start = time.perf_counter()
    pipeline.prepare(config, folder)
    first = time.perf_counter()
    pipeline.prepare(config, folder)
    second = time.perf_counter()
    return first - start, second - first, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _prepare_polars(source: Path, target: Path) -> tuple[float]:
    start = time.perf_counter()
    prepare_with_polars(source, target)
    return (time.perf_counter() - start,)


if __name__ == "__main__":
    run("preprocessing", measure)
