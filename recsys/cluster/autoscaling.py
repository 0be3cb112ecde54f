"""Configuration of a cluster's autoscaler: the types of nodes that it can add, and how many.

Ray reports only the nodes that run already; `resources` reads here which others can be added. The
configuration is available on the head node only.
"""

import logging
import os
from pathlib import Path
from typing import Any

from recsys.config.files import read_yaml

HEAD_FILE = "ray_bootstrap_config.yaml"
"""File that `ray up` writes into the home folder on the head node."""
POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
"""File in which Kubernetes stores the namespace of a pod."""

_log = logging.getLogger(__name__)


def autoscaler_config() -> dict[str, Any] | None:
    """Return the autoscaler's configuration, None if there is no autoscaler or it can't be read.

    The configuration is the file of `ray up`, or, in a pod of KubeRay, its equivalent for the
    RayCluster. recsys reads `available_node_types`, `head_node_type` and `max_workers` in it.
    """
    file = Path.home() / HEAD_FILE
    if file.exists():
        tree: dict[str, Any] = read_yaml(file)
        return tree
    name = os.environ.get("RAY_CLUSTER_NAME")  # KubeRay sets it in each of its pods
    if name is not None and POD_NAMESPACE.exists():
        return _kubernetes_config(name, POD_NAMESPACE.read_text(encoding="utf-8").strip())
    return None


def _kubernetes_config(name: str, namespace: str) -> dict[str, Any] | None:
    """Return the configuration that Ray's autoscaler derives from a RayCluster.

    KubeRay permits the head of a cluster with an autoscaler to read its RayCluster.
    """
    from ray.autoscaler._private.kuberay import autoscaling_config
    from ray.autoscaler._private.kuberay.node_provider import KubernetesHttpApiClient

    try:
        cluster = KubernetesHttpApiClient(namespace).get(f"rayclusters/{name}")
    except OSError as error:
        _log.warning(
            "The RayCluster %s cannot be read (%s). The search uses the nodes that run now.",
            name,
            error,
        )
        return None
    if not cluster["spec"].get("enableInTreeAutoscaling"):
        return None
    tree: dict[str, Any] = autoscaling_config._derive_autoscaling_config_from_ray_cr(cluster)
    return tree
