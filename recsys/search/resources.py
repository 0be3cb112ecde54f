"""How many trials run at a time on the nodes of the cluster, those that its autoscaler can add included.

Stands before the search: a request that no node can meet is a mistake, told before anything starts.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray

from recsys.config import Config
from recsys.config_files import read_yaml

HEAD_FILE = "ray_bootstrap_config.yaml"
"""What `ray up` leaves in the home of the head, where the driver runs: the autoscaler goes by it, and tells nobody else."""

_log = logging.getLogger(__name__)


def slots(config: Config) -> int:
    """How many trials fit on the connected cluster at a time once it has grown, bounded by `study.max_concurrent`.

    Raises:
        ValueError: if no node that is there or can be added holds one trial, or it asks for more than one GPU and a fraction.
    """
    cpu, gpu = config.resources.cpu, config.resources.gpu
    if gpu > 1 and not gpu.is_integer():
        raise ValueError(
            f"resources.gpu: must be whole above 1, but got {gpu:g}. Ask for {int(gpu)} or {int(gpu) + 1} with --gpu."
        )
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    addable, n_addable = _addable()
    now = sum(_trials_on(node, cpu, gpu) for node in nodes)
    grown = sum(sorted((_trials_on(node, cpu, gpu) for node in addable), reverse=True)[:n_addable])
    fitting = max(now, grown)
    if fitting == 0:
        known = [*nodes, *addable]
        largest_cpu, largest_gpu = (max((node.get(kind, 0.0) for node in known), default=0.0) for kind in ("CPU", "GPU"))
        name, asked, largest = ("gpu", gpu, largest_gpu) if gpu > largest_gpu else ("cpu", cpu, largest_cpu)
        raise ValueError(
            f"resources.{name}: must be at most what one node has, {largest:g}, but got {asked:g}. "
            f"Ask for less with --{name}, or join a cluster with larger nodes (cluster.address)."
        )
    if now == 0:
        _log.warning("No node holds a trial yet: the search waits until the cluster has started one, which can take minutes.")
    return min(fitting, config.study.max_concurrent or fitting)


def _addable() -> tuple[list[Mapping[str, float]], int]:
    """The resources of each node that the autoscaler can have running beside the head, and how many of them at a time."""
    file = Path.home() / HEAD_FILE
    if not file.exists():
        return [], 0
    tree: dict[str, Any] = read_yaml(file)
    types = [node_type for name, node_type in tree["available_node_types"].items() if name != tree["head_node_type"]]
    return [node_type["resources"] for node_type in types for _ in range(node_type["max_workers"])], tree["max_workers"]


def _trials_on(node: Mapping[str, float], cpu: float, gpu: float) -> int:
    """How many trials fit on a node at a time; a share of a GPU lies on one device."""
    by_cpu = _times(node.get("CPU", 0.0), cpu)
    if gpu == 0:
        return by_cpu
    n_gpus = node.get("GPU", 0.0)
    return min(by_cpu, _times(n_gpus, gpu) if gpu > 1 else int(n_gpus) * _times(1.0, gpu))


def _times(amount: float, share: float) -> int:
    """How often a share fits; 0.1 goes 10 times into 1, where floor division says 9."""
    return int(amount / share + 1e-6)
