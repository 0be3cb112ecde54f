"""Mistakes in the manifests for Kubernetes, by Kubernetes' schema and by the fields of KubeRay.

No package has KubeRay's schema, so this module lists the fields that the project uses.
Source: https://docs.ray.io/en/master/cluster/kubernetes/references/api.html (KubeRay 1.6).
"""

from collections.abc import Iterator, Mapping
from typing import Any

import kubernetes_validate

from tests.cluster.cluster_files import refused_options

KUBERNETES = "1.32"
POD = "pod"
_CLUSTER: dict[str, Any] = {
    "rayVersion": str,
    "authOptions": {"mode": ("disabled", "token")},
    "enableInTreeAutoscaling": bool,
    "autoscalerOptions": {
        "version": ("v1", "v2"),
        "idleTimeoutSeconds": int,
        "upscalingMode": ("Default", "Conservative"),
    },
    "headGroupSpec": {"rayStartParams": dict, "template": POD, "serviceType": str},
    "workerGroupSpecs": [
        {
            "groupName": str,
            "replicas": int,
            "minReplicas": int,
            "maxReplicas": int,
            "idleTimeoutSeconds": int,
            "rayStartParams": dict,
            "template": POD,
        }
    ],
}
SPECS: dict[str, dict[str, Any]] = {
    "RayCluster": _CLUSTER,
    "RayJob": {
        "entrypoint": str,
        "shutdownAfterJobFinishes": bool,
        "ttlSecondsAfterFinished": int,
        "activeDeadlineSeconds": int,
        "backoffLimit": int,
        "submissionMode": ("K8sJobMode", "HTTPMode"),
        "rayClusterSpec": _CLUSTER,
    },
}


def mistakes(document: dict[str, Any], ray_version: str) -> list[str]:
    """Return the mistakes of one manifest, which must run this version of Ray."""
    kind = document.get("kind")
    if kind not in SPECS:
        return _refused(document, str(kind))
    if document.get("apiVersion") != "ray.io/v1":
        return [f"apiVersion: must be ray.io/v1, but is {document.get('apiVersion')}"]
    found = list(_of_fields(document["spec"], SPECS[kind], "spec"))
    return found or list(
        _of_cluster(document["spec"].get("rayClusterSpec", document["spec"]), ray_version)
    )


def _of_fields(value: Any, wanted: Any, place: str) -> Iterator[str]:
    """Yield the mistakes of a value.

    Args:
        value: a value of the manifest.
        wanted: its type, a tuple of choices, a mapping of fields, or a list with one of these.
        place: the path of the value.
    """
    if wanted == POD:
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "pod", **value.get("metadata", {})},
            "spec": value["spec"],
        }
        yield from _refused(pod, f"{place}.template")
    elif isinstance(wanted, list):
        for number, entry in enumerate(value):
            yield from _of_fields(entry, wanted[0], f"{place}[{number}]")
    elif isinstance(wanted, tuple):
        if value not in wanted:
            yield f"{place}: must be one of {', '.join(wanted)}, but is {value!r}"
    elif isinstance(wanted, Mapping):
        for name, inner in value.items():
            if name in wanted:
                yield from _of_fields(inner, wanted[name], f"{place}.{name}")
            else:
                yield f"{place}.{name}: unknown"
    elif type(value) is not wanted:
        yield f"{place}: must be {wanted.__name__}, but is {value!r}"


def _refused(document: dict[str, Any], place: str) -> list[str]:
    """Return Kubernetes' error about one of its own objects, unknown fields included."""
    try:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as error:
        return [f"{place}: {error.message}"]
    return []


def _of_cluster(spec: Mapping[str, Any], ray_version: str) -> Iterator[str]:
    if spec["rayVersion"] != ray_version:
        yield f"rayVersion: must be {ray_version}, but is {spec['rayVersion']}"
    if spec.get("authOptions") != {"mode": "token"}:
        yield "authOptions: must turn the token on"
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        name = group.get("groupName", "head")
        options = " ".join(
            f"--{option}={value}" for option, value in group["rayStartParams"].items()
        )
        yield from (f"{name}.rayStartParams: {mistake}" for mistake in refused_options(options))
        if any(not isinstance(value, str) for value in group["rayStartParams"].values()):
            yield f"{name}.rayStartParams: must be strings"
        pod = group["template"]["spec"]
        volumes = {volume["name"] for volume in pod.get("volumes", [])}
        for container in pod["containers"]:
            resources = container.get("resources", {})
            if not resources.get("limits") or resources.get("limits") != resources.get("requests"):
                yield f"{name}: must request its limits: Ray takes its resources from the limits"
            mounts = {
                mount["name"]: mount["mountPath"] for mount in container.get("volumeMounts", [])
            }
            if mounts.keys() - volumes or "/recsys/experiments" not in mounts.values():
                yield f"{name}: must see the folder experiments"
        if (
            not group.get("minReplicas", 0)
            <= group.get("replicas", 0)
            <= group.get("maxReplicas", 0)
        ):
            yield f"{name}: must have minReplicas <= replicas <= maxReplicas"
