"""Measurement of a config: some seconds of its training and ranking, for a dry run.

It runs the only training loop on the whole data, in a task with the resources of a trial, but cuts
the epoch into many short segments and stops after a few of them. So the batches, the embeddings and
the memory are those of a trial, whatever the length of an epoch.
"""

import math
import re
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import torch

from recsys.cluster.resources import task_options
from recsys.config.components import LOSSES
from recsys.config.schema import Config, replace_values
from recsys.data.interactions import Interactions
from recsys.data.manifest import Manifest
from recsys.errors import InputError
from recsys.search.costs.work import EpochSeconds, expected_seconds
from recsys.training.fit import fit

SECONDS = 5.0
"""Time after which a measurement ends, except for the segment in progress."""
_SEGMENT_SECONDS = {"gradient_descent": 0.5, "least_squares": 3.0}
"""Expected time of a segment's training by solver. After a segment, least squares computes the loss
of all pairs, which must not count much."""
_RANK_SECONDS = 0.5
"""Expected time of the ranking after a segment."""
_BATCHES = 4
"""Least batches of a segment, for the work between two segments not to count much."""
_MEASURED = {
    "evaluation.every": 1,
    "training.patience": None,
    # The ends of a space may diverge; the work does not depend on these.
    "training.learning_rate": 1e-3,
    "model.init_std": 0.01,
}
"""Values of a config while it is measured."""
_TIMES = ("train_seconds", "rank_seconds")
_PROC = Path("/proc/self")


@dataclass(frozen=True)
class Measured:
    """Measured cost of a config.

    `epoch`: the time of a whole epoch, extrapolated. `memory`: the peak of the process in bytes,
    None if the system does not tell it.
    """

    epoch: EpochSeconds
    memory: int | None


def measure_all(
    configs: Sequence[Config], data: Any, sizes: Manifest, gpu_device: str = "cuda"
) -> list[Measured]:
    """Measure configs on the connected cluster, each in a task with the resources of a trial.

    `data`: reference to the `Interactions` in Ray's object store. `sizes`: their counts.

    Raises:
        InputError: if the data has nothing to train on or to rank; if a training diverges.
    """
    tasks = [
        ray.remote(_measure_on_node)
        .options(**task_options(config))
        .remote(config.model_dump_json(), data, sizes, gpu_device)
        for config in configs
    ]
    try:
        measured: list[Measured] = ray.get(tasks)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, InputError):
            raise error.cause from None  # without the traceback that Ray puts around it
        raise
    return measured


def _measure_on_node(
    config_json: str, data: Interactions, sizes: Manifest, gpu_device: str
) -> Measured:
    config = Config.model_validate_json(config_json)
    torch.set_num_threads(max(1, int(config.resources.cpu)))
    return measure(config, data, sizes, gpu_device if ray.get_gpu_ids() else "cpu")


def measure(
    config: Config, data: Interactions, sizes: Manifest, device: str | torch.device = "cpu"
) -> Measured:
    """Train and rank short segments of epochs until `SECONDS` have passed, and extrapolate.

    Raises:
        InputError: if the data has nothing to train on or to rank; if the training diverges.
    """
    expected = expected_seconds(config, sizes)
    n_segments = _count_segments(config, sizes, expected)
    n_users = min(config.evaluation.user_limit or sizes.n_users, sizes.n_users)
    n_ranked = math.ceil(n_users * min(1.0, _RANK_SECONDS / expected.rank))
    shortened = replace_values(config, {**_MEASURED, "evaluation.max_users": n_ranked})
    _reset_peak()
    began, found = time.monotonic(), []
    for epoch in fit(shortened, data, config.study.seed, device=device, n_segments=n_segments):
        found.append((epoch.epoch, EpochSeconds(*(epoch.metrics[name] for name in _TIMES))))
        if time.monotonic() >= began + SECONDS:
            break
    train, rank = times_of_segment(found, first_epoch=_work_of_first_epoch(config, sizes))
    scale = expected.rank / expected_seconds(shortened, sizes).rank
    return Measured(EpochSeconds(train * n_segments, rank * scale), _peak())


def times_of_segment(
    reports: Sequence[tuple[int, EpochSeconds]], first_epoch: float = 1.0
) -> tuple[float, float]:
    """Return the mean time of training a segment, and the time of ranking after the last one.

    The first segment counts only if there is no other: it is slower, as a process warms up. Ranking
    takes longer the more a model has learned, since popular items decide fewer ranks.

    Args:
        reports: the epoch of each segment, and the times of this epoch so far.
        first_epoch: the work of the first epoch, in epochs: before it, least squares solves the
            users once.
    """
    times = []
    before = 0, EpochSeconds(0.0, 0.0)
    for epoch, so_far in reports:
        train, rank = so_far.train, so_far.rank
        if epoch == before[0]:
            train, rank = train - before[1].train, rank - before[1].rank
        times.append((train / (first_epoch if epoch == 1 else 1.0), rank))
        before = epoch, so_far
    trains, ranks = zip(*(times[1:] or times), strict=True)
    return statistics.mean(trains), ranks[-1]


def _work_of_first_epoch(config: Config, sizes: Manifest) -> float:
    """Return the work of the first epoch relative to a later one.

    Least squares solves the users once more in it, which is half an epoch, or a third if each epoch
    solves them twice.
    """
    if _solver(config) != "least_squares":
        return 1.0
    solves_users_twice = config.training.recency_half_life is not None or sizes.holds_out_users
    return 4 / 3 if solves_users_twice else 3 / 2


def _solver(config: Config) -> str:
    return LOSSES[config.training.loss].solver


def _count_segments(config: Config, sizes: Manifest, expected: EpochSeconds) -> int:
    wanted = math.ceil(expected.train / _SEGMENT_SECONDS[_solver(config)])
    n_batches = sizes.n_train // config.training.batch_size
    return max(1, min(wanted, n_batches // _BATCHES))


def _reset_peak() -> None:
    """Let the peak of the process's memory begin anew, where the system can; see proc(5)."""
    if (reset := _PROC / "clear_refs").exists():
        reset.write_text("5")


def _peak() -> int | None:
    """Return the peak of the process's memory in bytes, None if the system does not tell it."""
    if not (status := _PROC / "status").exists():
        return None
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status.read_text(), re.MULTILINE)
    return None if found is None else int(found[1]) << 10
