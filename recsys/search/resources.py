"""What a trial asks of the cluster, and how many run at a time on its nodes, those that its autoscaler can add included.

Stands before the search: a request that no node can meet is a mistake, told before anything starts.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray

from recsys.config import Config
from recsys.config_files import read_yaml
from recsys.data.connection import connect

if TYPE_CHECKING:
    from ray.tune import PlacementGroupFactory

HEAD_FILE = "ray_bootstrap_config.yaml"
"""What `ray up` leaves in the home of the head, where the driver runs: the autoscaler goes by it, and tells nobody else."""

_log = logging.getLogger(__name__)


def join(config: Config) -> None:
    """Join the cluster of the config, and tell what a search will wait for there before anything does; nothing where Ray runs.

    Raises:
        ConnectionError: if there is no cluster at the address, or one of other versions.
        ValueError: if no node that is there or can be added holds a trial.
    """
    if ray.is_initialized():
        return
    connect(config)
    slots(config)
    if not any(node.trials(config) for node in _nodes()):
        _log.warning("No node holds a trial yet: the search waits until the cluster has started one, which can take minutes.")


def placement(config: Config, gpu: float) -> "PlacementGroupFactory":
    """What Ray sets aside for a trial that has this share of a GPU: all on one node, which has the labels asked for."""
    from ray.tune import PlacementGroupFactory

    return PlacementGroupFactory([{**_amounts(config), "GPU": gpu}], bundle_label_selector=[_labels(config)])


def slots(config: Config) -> int:
    """How many trials fit on the connected cluster at a time once it has grown, bounded by `study.max_concurrent`.

    Raises:
        ValueError: if no node that is there or can be added holds one trial, or it asks for more than one GPU and a fraction.
    """
    gpu = config.resources.gpu
    if gpu > 1 and not gpu.is_integer():
        raise ValueError(
            f"resources.gpu: must be whole above 1, but got {gpu:g}. Ask for {int(gpu)} or {int(gpu) + 1} with --gpu."
        )
    nodes = _nodes()
    addable, n_addable = _addable()
    grown = sum(sorted((node.trials(config) for node in addable), reverse=True)[:n_addable])
    fitting = max(sum(node.trials(config) for node in nodes), grown)
    if fitting == 0:
        raise ValueError(f"{_unmet(config, [*nodes, *addable])}, or join a cluster with such nodes (cluster.address).")
    return min(fitting, config.study.max_concurrent or fitting)


@dataclass(frozen=True)
class _Node:
    """A node that is there or can be added; `resources` by Ray's names."""

    resources: Mapping[str, float]
    labels: Mapping[str, str]

    def trials(self, config: Config) -> int:
        """How many trials fit on it at a time; a share of a GPU lies on one device."""
        if not _labels(config).items() <= self.labels.items():
            return 0
        amounts = _amounts(config)
        fitting = {kind: _times(self.resources.get(kind, 0.0), amount) for kind, amount in amounts.items() if amount > 0}
        if 0 < amounts["GPU"] <= 1:
            fitting["GPU"] = int(self.resources.get("GPU", 0.0)) * _times(1.0, amounts["GPU"])
        return min(fitting.values())


def _amounts(config: Config) -> dict[str, float]:
    """How much of which of Ray's resources a trial takes."""
    custom = {name: amount for name, amount in config.resources.custom.items() if not isinstance(amount, str)}
    return {"CPU": config.resources.cpu, "GPU": config.resources.gpu, **custom}


def _labels(config: Config) -> dict[str, str]:
    """The labels that a trial's node must have."""
    return {name: value for name, value in config.resources.custom.items() if isinstance(value, str)}


def _nodes() -> list[_Node]:
    """The nodes that are there."""
    return [_Node(node["Resources"], node["Labels"]) for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


def _addable() -> tuple[list[_Node], int]:
    """The nodes that the autoscaler can have running beside the head, and how many of them at a time."""
    file = Path.home() / HEAD_FILE
    if not file.exists():
        return [], 0
    tree: dict[str, Any] = read_yaml(file)
    types = [node_type for name, node_type in tree["available_node_types"].items() if name != tree["head_node_type"]]
    nodes = [_Node(one["resources"], one.get("labels", {})) for one in types for _ in range(one["max_workers"])]
    return nodes, tree["max_workers"]


def _unmet(config: Config, nodes: Sequence[_Node]) -> str:
    """The first thing that a trial asks for and no node has, or else that no node has all of it: a mistake and half a remedy."""
    for kind, amount in _amounts(config).items():
        largest = max((node.resources.get(kind, 0.0) for node in nodes), default=0.0)
        if amount > largest:
            own = kind in ("CPU", "GPU")
            path, unit, flag = (kind.lower(), "", f" with --{kind.lower()}") if own else ("custom", f" of {kind}", "")
            got = f"must be at most what one node has, {largest:g}{unit}, but got {amount:g}"
            return f"resources.{path}: {got}. Ask for less{flag}"
    for name, value in _labels(config).items():
        known = sorted({node.labels[name] for node in nodes if name in node.labels})
        if value not in known:
            known_text = f"one of {', '.join(known)}" if known else "left out, as no node has this label"
            return f"resources.custom: {name} must be {known_text}, but got {value!r}. Change it"
    asked = ", ".join(f"{name} {value}" for name, value in {**_amounts(config), **_labels(config)}.items() if value)
    return f"resources: must be what one node has together, but got {asked}. Ask for less"


def _times(amount: float, share: float) -> int:
    """How often a share fits; 0.1 goes 10 times into 1, where floor division says 9."""
    return int(amount / share + 1e-6)
