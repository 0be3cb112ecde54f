"""Tasks of the pipeline, executed by Ray Data.

An execution without a shuffle costs hundredths of a second. Ray Data's hash shuffle starts actors
for seconds, and buckets make it unnecessary.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

import numpy as np

from recsys.console.verbosity import progress

_SECONDS_PER_LINE = 2.0


class Run(Protocol):
    """Function that executes tasks, as `run_tasks` does."""

    def __call__(self, n: int, task: Any, *shared: Any) -> list[Any]:
        """Return the results of `task(number, *shared)` for each number below `n`, in order."""


def limit_cpus(n_cpus: int | None) -> None:
    """Limit the CPUs that executions take at a time from now on; None for no limit."""
    from ray.data import DataContext, ExecutionResources

    DataContext.get_current().execution_options.resource_limits = ExecutionResources.for_limits(
        cpu=n_cpus
    )


def run_tasks(n: int, task: Callable[..., Any], *shared: Any) -> list[Any]:
    """Return all results of `stream_tasks`."""
    return list(stream_tasks(n, task, *shared))


def stream_tasks(
    n: int, task: Callable[..., Any], *shared: Any, rows: Callable[[Any], int] | None = None
) -> Iterator[Any]:
    """Execute `task(0, *shared)`, ..., `task(n - 1, *shared)`, and yield their results in order.

    Args:
        n: number of tasks.
        task: the function that each task calls.
        shared: arguments that all tasks share, stored once.
        rows: returns the number of rows that a result stands for, to show as progress.
    """
    import ray.data

    if n == 0:
        return
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    stored = ray.put(shared)

    def apply(batch: Any) -> Any:
        # Ray Data warns that a result is no Arrow value.
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        results = np.empty(len(batch["number"]), dtype=object)
        for position, number in enumerate(batch["number"]):
            results[position] = task(int(number), *ray.get(stored))
        return {"number": batch["number"], "result": results}

    numbers = ray.data.from_items(
        [{"number": number} for number in range(n)], override_num_blocks=n
    )
    mapped = numbers.map_batches(apply, batch_size=None, batch_format="numpy", zero_copy_batch=True)
    yield from _in_order(mapped.iter_rows(), n, rows)


def _in_order(
    results: Iterable[dict[str, Any]], n: int, rows: Callable[[Any], int] | None
) -> Iterator[Any]:
    """Yield the results of `n` tasks by number, and show progress.

    A result waits until those before it have arrived, so that the driver holds few of them.
    """
    waiting: dict[int, Any] = {}
    next_number = n_done = n_rows = 0
    with progress("Preparing" if rows is None else "Reading", _SECONDS_PER_LINE) as show:
        for row in results:
            waiting[row["number"]] = row["result"]
            n_done += 1
            n_rows += 0 if rows is None else rows(row["result"])
            show(f"task {n_done:,} of {n:,}" + ("" if rows is None else f", {n_rows:,} rows"))
            while next_number in waiting:
                yield waiting.pop(next_number)
                next_number += 1
