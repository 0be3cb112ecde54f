"""Resources of a trial, and the number of trials that the cluster's nodes can run at a time.

Nodes that the autoscaler can add count too. A request that no node can satisfy is reported before
the search starts.
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
    """Connect to the cluster of the config unless connected, and check that trials can run there.

    Log a warning if trials have to wait for a node that the autoscaler has yet to start.

    Raises:
        InputError: if the address has no cluster, or a cluster with other versions; if no node,
            running or to be added, can run a trial.
    """
    if ray.is_initialized():
        return
    connect(config)
    Slots(config)
    if not any(node.n_trials(config) for node in _running_nodes()):
        _log.warning(
            "No node can run a trial yet: the search waits for the cluster to start one, "
            "which can take minutes."
        )


def placement(config: Config, gpu: float) -> "PlacementGroupFactory":
    """Return the resources that Ray reserves for a trial, on one node with the labels asked for.

    Args:
        config: the trial's config.
        gpu: GPUs of the trial, or its share of one.
    """
    from ray.tune import PlacementGroupFactory

    return PlacementGroupFactory(
        [{**_amounts(config), "GPU": gpu}], bundle_label_selector=[_labels(config)]
    )


def task_options(config: Config) -> dict[str, Any]:
    """Return the options of a Ray task with the resources of a trial; Ray retries a lost task."""
    amounts = _amounts(config)
    cpu, gpu = amounts.pop("CPU"), amounts.pop("GPU")
    return {
        "num_cpus": cpu,
        "num_gpus": gpu,
        "resources": amounts,
        "label_selector": _labels(config),
        "max_retries": config.resources.max_failures,
    }


class Slots:
    """Number of trials that can run at a time on the connected cluster, as its nodes change.

    `most`: the largest number so far.
    """

    def __init__(self, config: Config) -> None:
        """Count the slots, including those on nodes that the autoscaler can add.

        Raises:
            InputError: if no node, running or to be added, can run a trial; if `resources.gpu` is
                above 1 and not whole.
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
        self._addable, self._n_addable = _addable_nodes()
        self.most = 0
        self._count()
        if self.most == 0:
            raise _unsatisfied(config, [*_running_nodes(), *self._addable])

    def count(self) -> int:
        """Return the number of slots, at most `study.max_concurrent` and at least 1.

        The number holds for the cluster at its largest size, so that the autoscaler adds nodes. It
        is 1 if no node is left, so that a trial waits for the next node.
        """
        if time.monotonic() >= self._counted + _RECOUNT_SECONDS:
            self._count()
        return max(1, self._n_slots)

    def _count(self) -> None:
        self._counted = time.monotonic()
        addable = sorted((node.n_trials(self._config) for node in self._addable), reverse=True)
        at_full_size = sum(addable[: self._n_addable])
        # The running nodes may be among the addable ones: the larger sum, not the sum of both.
        running = sum(node.n_trials(self._config) for node in _running_nodes())
        n_slots = max(running, at_full_size)
        self._n_slots = min(n_slots, self._config.study.max_concurrent or n_slots)
        self.most = max(self.most, self._n_slots)


@dataclass(frozen=True)
class _Node:
    """Node that runs or can be added. `resources`: amounts by Ray's names."""

    resources: Mapping[str, float]
    labels: Mapping[str, str]

    def n_trials(self, config: Config) -> int:
        """Return the number of trials that the node can run at a time."""
        if not _labels(config).items() <= self.labels.items():
            return 0
        amounts = _amounts(config)
        fitting = {
            kind: _n_fitting(self.resources.get(kind, 0.0), amount)
            for kind, amount in amounts.items()
            if amount > 0
        }
        if 0 < amounts["GPU"] <= 1:  # a share is of one GPU: leftovers do not add up
            n_gpus = int(self.resources.get("GPU", 0.0))
            fitting["GPU"] = n_gpus * _n_fitting(1.0, amounts["GPU"])
        return min(fitting.values())


def _amounts(config: Config) -> dict[str, float]:
    """Return the amount that a trial takes of each resource, by Ray's names."""
    custom = {
        name: amount
        for name, amount in config.resources.custom.items()
        if not isinstance(amount, str)
    }
    return {"CPU": config.resources.cpu, "GPU": config.resources.gpu, **custom}


def _labels(config: Config) -> dict[str, str]:
    """Return the labels that a trial's node must have."""
    return {
        name: value for name, value in config.resources.custom.items() if isinstance(value, str)
    }


def _running_nodes() -> list[_Node]:
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    return [_Node(node["Resources"], node["Labels"]) for node in nodes if node["Alive"]]


def _addable_nodes() -> tuple[list[_Node], int]:
    """Return the nodes that the autoscaler can run beside the head, and how many at a time."""
    tree = autoscaler_config()
    if tree is None:
        return [], 0
    nodes = [
        _Node(node_type["resources"], node_type.get("labels", {}))
        for name, node_type in tree["available_node_types"].items()
        if name != tree["head_node_type"]
        for _ in range(node_type["max_workers"])
    ]
    return nodes, tree["max_workers"]


def _unsatisfied(config: Config, nodes: Sequence[_Node]) -> InputError:
    """Return the error about the first resource or label that no node has, or about all of them."""
    remedy = "or join a cluster with such nodes (cluster.address)."
    for kind, amount in _amounts(config).items():
        largest = max((node.resources.get(kind, 0.0) for node in nodes), default=0.0)
        if amount > largest:
            path, unit = (kind.lower(), "") if kind in ("CPU", "GPU") else ("custom", f" of {kind}")
            rule = f"must be at most what one node has, {largest:g}{unit}"
            return InputError(f"resources.{path}", rule, f"{amount:g}", f"Ask for less, {remedy}")
    for name, value in _labels(config).items():
        known = sorted({node.labels[name] for node in nodes if name in node.labels})
        if value not in known:
            allowed = (
                f"one of {', '.join(known)}" if known else "left out, as no node has this label"
            )
            rule = f"{name} must be {allowed}"
            return InputError("resources.custom", rule, repr(value), f"Change it, {remedy}")
    asked = ", ".join(
        f"{name} {value}"
        for name, value in {**_amounts(config), **_labels(config)}.items()
        if value
    )
    rule = "must be what one node has together"
    return InputError("resources", rule, asked, f"Ask for less, {remedy}")


def _n_fitting(amount: float, share: float) -> int:
    """Return how often a share fits: 0.1 fits 10 times into 1, where floor division gives 9."""
    return int(amount / share + 1e-6)
