"""What the autoscaler of a cluster goes by: the types of nodes that it can add, and how many of each.

Stands below `resources`: Ray tells a driver of the nodes that are there alone, so what else there may be is read on the head.
"""

import logging
import os
from pathlib import Path
from typing import Any

from recsys.config.files import read_yaml

HEAD_FILE = "ray_bootstrap_config.yaml"
"""What `ray up` leaves in the home of the head."""
POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
"""Where Kubernetes tells a pod its namespace."""

_log = logging.getLogger(__name__)


def autoscaler_config() -> dict[str, Any] | None:
    """The file of `ray up`, or the same of the RayCluster whose pod this is; None where nobody adds nodes, or nobody tells.

    Of its fields these are read: `available_node_types`, `head_node_type` and `max_workers`.
    """
    file = Path.home() / HEAD_FILE
    if file.exists():
        tree: dict[str, Any] = read_yaml(file)
        return tree
    if (
        "RAY_CLUSTER_NAME" in os.environ and POD_NAMESPACE.exists()
    ):  # set by KubeRay in each of its pods
        return _of_kubernetes(
            os.environ["RAY_CLUSTER_NAME"], POD_NAMESPACE.read_text(encoding="utf-8").strip()
        )
    return None


def _of_kubernetes(name: str, namespace: str) -> dict[str, Any] | None:
    """What Ray's autoscaler makes of a RayCluster, which the head of one with an autoscaler may read."""
    from ray.autoscaler._private.kuberay import autoscaling_config
    from ray.autoscaler._private.kuberay.node_provider import KubernetesHttpApiClient

    try:
        cluster = KubernetesHttpApiClient(namespace).get(f"rayclusters/{name}")
    except OSError as error:
        _log.warning(
            "The RayCluster %s cannot be read (%s): the search counts on the nodes that are there.",
            name,
            error,
        )
        return None
    if not cluster["spec"].get("enableInTreeAutoscaling"):
        return None
    tree: dict[str, Any] = autoscaling_config._derive_autoscaling_config_from_ray_cr(cluster)
    return tree
