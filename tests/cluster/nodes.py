"""A Ray cluster of several nodes on this machine, each with a raylet and an object store of its own, and drivers that join it.

All nodes have one address: a test tells them apart by Ray's ids.
"""

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray.cluster_utils import Cluster

from recsys.cluster.connection import connect
from recsys.config.schema import Config
from recsys.search.tuning.trainable import TrialRunner

GIVE_UP_SECONDS = 240.0
STORE_BYTES = 100_000_000


@contextmanager
def cluster_of(nodes: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[Cluster, dict[str, Any]]]:
    """A head without CPUs and these nodes, each with its name as the label `name`; the handles of the nodes by name too."""
    settings: dict[str, Any] = {"object_store_memory": STORE_BYTES, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **settings})
    try:
        yield (
            cluster,
            {
                name: cluster.add_node(**settings, **node, labels={"name": name})
                for name, node in nodes.items()
            },
        )
    finally:
        cluster.shutdown()  # type: ignore[no-untyped-call]


@contextmanager
def drivers(address: str) -> Iterator[ProcessPoolExecutor]:
    """Two processes that have joined the cluster."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context, initializer=_join, initargs=(address,)) as pool:
        yield pool


def _join(address: str) -> None:
    os.environ["RAY_ADDRESS"] = address
    connect(Config())


def names() -> dict[str, str]:
    """Ray's id of each node that is there to its name, the head's to "head"."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return {node["NodeID"]: node["Labels"].get("name", "head") for node in nodes if node["Alive"]}


def here() -> str:
    """The name of the node that a worker runs on."""
    return names()[ray.get_runtime_context().get_node_id()]


def wait_until(reached: Callable[[], bool]) -> None:
    """Look again and again until it is so.

    Raises:
        TimeoutError: if it takes too long.
    """
    deadline = time.monotonic() + GIVE_UP_SECONDS
    while not reached():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.02)


class NotingRunner(TrialRunner):
    """Notes of each step in the study's file `notes`: the trial's number, the step's epoch, node, process and devices."""

    def step(self) -> dict[str, Any]:
        told = super().step()
        devices = ",".join(map(str, ray.get_gpu_ids()))
        with (self._folder.parent / "notes").open("a") as file:
            file.write(
                f"{self.config['number']} {told['epoch']} {here()} {os.getpid()} {devices}\n"
            )
        return told


def notes(study_folder: Path) -> list[tuple[int, int, str, int, str]]:
    """What `NotingRunner` noted, in order."""
    lines = (study_folder / "notes").read_text(encoding="utf-8").splitlines()
    rows = [line.split(" ") for line in lines]
    return [
        (int(number), int(epoch), node, int(pid), devices)
        for number, epoch, node, pid, devices in rows
    ]
