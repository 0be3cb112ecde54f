"""What a trial asks of the cluster, and how many run at a time on its nodes, those that its autoscaler can add included.

Stands before the search: a request that no node can meet is a mistake, told before anything starts.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ray

from recsys.cluster.autoscaling import autoscaler_config
from recsys.cluster.connection import connect
from recsys.config.schema import Config
from recsys.errors import InputError

if TYPE_CHECKING:
    from ray.tune import PlacementGroupFactory

_RECOUNT_SECONDS = 5.0

_log = logging.getLogger(__name__)


def join(config: Config) -> None:
    """Join the cluster of the config, and tell what trials will wait for there before they do; nothing where Ray runs.

    Raises:
        InputError: if there is no cluster at the address, or one of other versions; if no node that is there or can be added
            holds a trial.
    """
    if ray.is_initialized():
        return
    connect(config)
    Slots(config)
    if not any(node.trials(config) for node in _nodes()):
        _log.warning(
            "No node holds a trial yet: this waits until the cluster has started one, which can take minutes."
        )


def placement(config: Config, gpu: float) -> "PlacementGroupFactory":
    """What Ray sets aside for a trial that has this share of a GPU: all on one node, which has the labels asked for."""
    from ray.tune import PlacementGroupFactory

    return PlacementGroupFactory(
        [{**_amounts(config), "GPU": gpu}], bundle_label_selector=[_labels(config)]
    )


def task_options(config: Config) -> dict[str, Any]:
    """What a task of Ray's is to ask for that does a trial's work; one that is lost with its node is tried again."""
    amounts = _amounts(config)
    cpu, gpu = amounts.pop("CPU"), amounts.pop("GPU")
    asked = {
        "num_cpus": cpu,
        "num_gpus": gpu,
        "resources": amounts,
        "label_selector": _labels(config),
    }
    return {**asked, "max_retries": config.resources.max_failures}


class Slots:
    """How many trials may run at a time on the connected cluster: counted again as it grows and shrinks.

    `most`: the largest count so far.
    """

    def __init__(self, config: Config) -> None:
        """Count for the first time, with what the autoscaler can add.

        Raises:
            InputError: if no node that is there or can be added holds a trial, or it asks for more than one GPU and a fraction.
        """
        gpu = config.resources.gpu
        if gpu > 1 and not gpu.is_integer():
            raise InputError(
                "resources.gpu",
                "must be whole above 1",
                f"{gpu:g}",
                f"Ask for {int(gpu)} or {int(gpu) + 1}.",
            )
        self._config = config
        self._addable, self._n_addable = _addable()
        self.most = 0
        self._count()
        if self.most == 0:
            nodes = [*_nodes(), *self._addable]
            raise _unmet(config, nodes)

    def count(self) -> int:
        """As many as fit once the cluster has grown, bounded by `study.max_concurrent`; one, to wait, where no node is left."""
        if time.monotonic() >= self._counted + _RECOUNT_SECONDS:
            self._count()
        return max(1, self._fitting)

    def _count(self) -> None:
        self._counted = time.monotonic()
        grown = sum(
            sorted((node.trials(self._config) for node in self._addable), reverse=True)[
                : self._n_addable
            ]
        )
        fitting = max(sum(node.trials(self._config) for node in _nodes()), grown)
        self._fitting = min(fitting, self._config.study.max_concurrent or fitting)
        self.most = max(self.most, self._fitting)


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
        fitting = {
            kind: _times(self.resources.get(kind, 0.0), amount)
            for kind, amount in amounts.items()
            if amount > 0
        }
        if 0 < amounts["GPU"] <= 1:
            fitting["GPU"] = int(self.resources.get("GPU", 0.0)) * _times(1.0, amounts["GPU"])
        return min(fitting.values())


def _amounts(config: Config) -> dict[str, float]:
    """How much of which of Ray's resources a trial takes."""
    custom = {
        name: amount
        for name, amount in config.resources.custom.items()
        if not isinstance(amount, str)
    }
    return {"CPU": config.resources.cpu, "GPU": config.resources.gpu, **custom}


def _labels(config: Config) -> dict[str, str]:
    """The labels that a trial's node must have."""
    return {
        name: value for name, value in config.resources.custom.items() if isinstance(value, str)
    }


def _nodes() -> list[_Node]:
    """The nodes that are there."""
    return [_Node(node["Resources"], node["Labels"]) for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


def _addable() -> tuple[list[_Node], int]:
    """The nodes that the autoscaler can have running beside the head, and how many of them at a time."""
    tree = autoscaler_config()
    if tree is None:
        return [], 0
    types = [
        node_type
        for name, node_type in tree["available_node_types"].items()
        if name != tree["head_node_type"]
    ]
    nodes = [
        _Node(one["resources"], one.get("labels", {}))
        for one in types
        for _ in range(one["max_workers"])
    ]
    return nodes, tree["max_workers"]


def _unmet(config: Config, nodes: Sequence[_Node]) -> InputError:
    """Return the error about the first thing that a trial asks for and no node has, or else that no node has all of it."""
    joining = ", or join a cluster with such nodes (cluster.address)."
    for kind, amount in _amounts(config).items():
        largest = max((node.resources.get(kind, 0.0) for node in nodes), default=0.0)
        if amount > largest:
            own = kind in ("CPU", "GPU")
            path, unit = (kind.lower(), "") if own else ("custom", f" of {kind}")
            rule = f"must be at most what one node has, {largest:g}{unit}"
            return InputError(f"resources.{path}", rule, f"{amount:g}", f"Ask for less{joining}")
    for name, value in _labels(config).items():
        known = sorted({node.labels[name] for node in nodes if name in node.labels})
        if value not in known:
            known_text = (
                f"one of {', '.join(known)}" if known else "left out, as no node has this label"
            )
            return InputError(
                "resources.custom",
                f"{name} must be {known_text}",
                repr(value),
                f"Change it{joining}",
            )
    asked = ", ".join(
        f"{name} {value}"
        for name, value in {**_amounts(config), **_labels(config)}.items()
        if value
    )
    return InputError(
        "resources", "must be what one node has together", asked, f"Ask for less{joining}"
    )


def _times(amount: float, share: float) -> int:
    """How often a share fits; 0.1 goes 10 times into 1, where floor division says 9."""
    return int(amount / share + 1e-6)
