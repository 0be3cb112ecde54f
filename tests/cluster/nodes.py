"""A Ray cluster of several nodes on this machine, and drivers that join it.

Each node has its own raylet and object store. All nodes have the same address: tests distinguish
them by Ray's ids.
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
from recsys.search.tuning.messages import Report, message_of
from recsys.search.tuning.trainable import TrialRunner

GIVE_UP_SECONDS = 240.0
STORE_BYTES = 100_000_000


@contextmanager
def cluster_of(nodes: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[Cluster, dict[str, Any]]]:
    """Run a head without CPUs and these nodes; yield the cluster and the nodes' handles by name.

    Each node has its name as the label `name`.
    """
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
    """Run two processes that have joined the cluster."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context, initializer=_join, initargs=(address,)) as pool:
        yield pool


def _join(address: str) -> None:
    os.environ["RAY_ADDRESS"] = address
    connect(Config())


def names() -> dict[str, str]:
    """Return Ray's id of each running node -> its name; the head's name is "head"."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return {node["NodeID"]: node["Labels"].get("name", "head") for node in nodes if node["Alive"]}


def this_node() -> str:
    """Return the name of the node that this worker runs on."""
    return names()[ray.get_runtime_context().get_node_id()]


def wait_until(reached: Callable[[], bool]) -> None:
    """Poll until `reached` returns True.

    Raises:
        TimeoutError: if it does not within `GIVE_UP_SECONDS`.
    """
    deadline = time.monotonic() + GIVE_UP_SECONDS
    while not reached():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.02)


class NotingRunner(TrialRunner):
    """Worker that adds a line for each step to the study's file `notes`.

    A line has the trial's number, the epoch, the node, the pid and the GPUs.
    """

    def step(self) -> dict[str, Any]:
        result = super().step()
        message = message_of(result)
        assert isinstance(message, Report)
        devices = ",".join(map(str, ray.get_gpu_ids()))
        with (self._folder.parent / "notes").open("a") as file:
            file.write(
                f"{self.config['number']} {message.epoch} {this_node()} {os.getpid()} {devices}\n"
            )
        return result


def notes(study_folder: Path) -> list[tuple[int, int, str, int, str]]:
    """Return the lines of `NotingRunner`, in order."""
    lines = (study_folder / "notes").read_text(encoding="utf-8").splitlines()
    rows = [line.split(" ") for line in lines]
    return [
        (int(number), int(epoch), node, int(pid), devices)
        for number, epoch, node, pid, devices in rows
    ]
