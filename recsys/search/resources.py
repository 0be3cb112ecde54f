"""How many trials run at a time on the nodes of the cluster.

Stands before the search: a request that no node can meet is a mistake, told before anything starts.
"""

from collections.abc import Mapping

import ray

from recsys.config import Config


def slots(config: Config) -> int:
    """How many trials fit on the nodes of the connected cluster at a time, bounded by `study.max_concurrent`.

    Raises:
        ValueError: if no node can hold one trial, or it asks for more than one GPU and a fraction.
    """
    cpu, gpu = config.resources.cpu, config.resources.gpu
    if gpu > 1 and not gpu.is_integer():
        raise ValueError(
            f"resources.gpu: must be whole above 1, but got {gpu:g}. Ask for {int(gpu)} or {int(gpu) + 1} with --gpu."
        )
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    fitting = sum(_trials_on(node, cpu, gpu) for node in nodes)
    if fitting == 0:
        largest_cpu, largest_gpu = (max((node.get(kind, 0.0) for node in nodes), default=0.0) for kind in ("CPU", "GPU"))
        name, asked, largest = ("gpu", gpu, largest_gpu) if gpu > largest_gpu else ("cpu", cpu, largest_cpu)
        raise ValueError(
            f"resources.{name}: must be at most what one node has, {largest:g}, but got {asked:g}. "
            f"Ask for less with --{name}, or join a cluster with larger nodes (cluster.address)."
        )
    return min(fitting, config.study.max_concurrent or fitting)


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
