"""Private memory of a trial's worker: the data are once in the node's object store, not in it."""

import ctypes
import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from ray import tune

from recsys.config.schema import Config, replace_values
from recsys.data.interactions import HeldOut, Interactions
from recsys.data.negatives import UserItemIndex
from recsys.search.tuning.trainable import TrialRunner

N_USERS, N_ITEMS = 20_000, 4_000


def interactions(n_each: int) -> Interactions:
    """Return data in which each user has `n_each` items at equal distances, the first held out."""
    distance = N_ITEMS // n_each
    first = np.arange(N_USERS, dtype=np.int32)[:, None] % distance
    items = first + np.arange(n_each, dtype=np.int32) * distance  # (n_users, n_each)
    user = np.repeat(np.arange(N_USERS, dtype=np.int32), n_each - 1)
    train = np.ascontiguousarray(items[:, 1:]).ravel()
    known = UserItemIndex(np.arange(N_USERS + 1, dtype=np.int64) * (n_each - 1), train, N_ITEMS)
    none = np.empty(0, dtype=np.int32)
    held_out = HeldOut(
        np.arange(N_USERS, dtype=np.int32),
        np.ascontiguousarray(items[:, 0]),
        none,
        none,
        None,
        None,
    )
    return Interactions(N_USERS, N_ITEMS, user, train, None, none, none, known, held_out)


def private_bytes() -> int:
    """Return the bytes that this process alone holds, after it returned freed memory."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    lines = Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines()
    return sum(
        int(line.split()[1]) * 1024
        for line in lines
        if line.startswith(("Private_Clean", "Private_Dirty"))
    )


@ray.remote(num_cpus=1)
class Worker:
    """A process that sets up trials as Tune does, one after another."""

    def __init__(self, folder: str, config: dict[str, Any]) -> None:
        self._folder, self._config = folder, config

    def grow(self, data: list[Any]) -> tuple[int, int]:
        """Return the private bytes that a trial's set-up adds, and that set-up and an epoch add."""
        self._runner = None  # frees the memory of the previous one
        before = private_bytes()
        make = tune.with_parameters(TrialRunner, data=data, folder=self._folder, gpu_device="cpu")
        self._runner = make(config=self._config)
        ready = private_bytes()
        self._runner.step()
        return ready - before, private_bytes() - before


@pytest.fixture(scope="module")
def growth(ray_here: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[float, float]:
    """Private bytes per interaction, from 1 M to 4 M: after the set-up, and after an epoch."""
    settings = {"model.name": "inner_product", "model.embedding_dim": 4, "training.n_negatives": 1}
    settings |= {"training.batch_size": 1 << 16, "evaluation.max_users": 100}
    config = replace_values(Config(), settings)
    given = {"number": 0, "seed": 0, "config": config.model_dump_json(), "pruning_steps": []}
    folder = str(tmp_path_factory.mktemp("memory"))
    worker = Worker.remote(folder, given)  # type: ignore[attr-defined]
    small, large = interactions(50), interactions(200)
    # The first trial of a process imports modules.
    _, before, after = (
        ray.get(worker.grow.remote([ray.put(data)])) for data in (small, small, large)
    )
    n_more = len(large.user) - len(small.user)
    return (after[0] - before[0]) / n_more, (after[1] - before[1]) / n_more


def test_a_trial_is_set_up_without_a_copy_of_the_data(growth: tuple[float, float]) -> None:
    # An interaction takes 12 bytes in the object store: its user, its item, and the item again in
    # the list of the user's seen items.
    assert growth[0] < 0.2


def test_training_holds_little_beside_the_data(growth: tuple[float, float]) -> None:
    # The sampler's key (8 bytes) and cells (9.5 here), and an index in the epoch's order (8). Users
    # and items as int64 would take 16 more.
    assert growth[1] < 30
