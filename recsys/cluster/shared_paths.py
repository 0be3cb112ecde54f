"""Checks that all nodes of a cluster see the paths that tasks and trials read and write.

They run before the work starts. Without them, each node would fill a folder of its own under the
same path, and no error would follow.
"""

import platform
import time
from pathlib import Path

from recsys.errors import Argument, InputError
from recsys.storage.files import temporary_sibling
from recsys.storage.s3 import url_of

_MAX_DELAY_SECONDS = 5.0
"""Longest time until a network file system shows a file that another node created."""


def require_on_all_nodes(place: str, *paths: Path) -> None:
    """Check that every node of the connected cluster sees each path, and the same folder there.

    A folder that does not exist is created.

    Args:
        place: the place of the error: `folder`, or the config path that `paths` come from.
        *paths: files, and folders that can be written; one in S3 is visible everywhere.

    Raises:
        InputError: if a node does not see a path.
    """
    import ray

    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    others = {node["NodeID"]: node["NodeManagerHostname"] for node in nodes if node["Alive"]}
    others.pop(ray.get_runtime_context().get_node_id(), None)
    for path in paths:
        if not others or url_of(path) is not None:
            continue
        if path.is_file():
            _require(place, path, path, others)
        else:
            # A new folder in it shows that a node sees this folder, not its own of the same name.
            with temporary_sibling(path / "seen") as marker:
                _require(place, path, marker, others)


def require_on_this_node(folder: Path) -> None:
    """Check that this node sees a folder that the driver has created.

    Raises:
        InputError: if it does not; a folder in S3 is visible everywhere.
    """
    if url_of(folder) is None and not folder.is_dir():
        raise InputError(
            Argument("folder"),
            "must be a folder that all nodes see",
            f"{folder}, which is not on {platform.node()}",
            "Give a shared folder or s3://BUCKET/PREFIX.",
        )


def _require(place: str, path: Path, probe: Path, hosts: dict[str, str]) -> None:
    """Check that nodes see `probe`, which is `path` or a folder in it.

    Args:
        place: the place of the error.
        path: the path in the error.
        probe: the path to look for.
        hosts: node id -> host name.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    look = ray.remote(num_cpus=0, max_retries=0)(_appears)
    visible = {
        node: look.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)
        ).remote(str(probe))
        for node in hosts
    }
    left = (
        ray.exceptions.NodeDiedError,
        ray.exceptions.TaskUnschedulableError,
        ray.exceptions.WorkerCrashedError,
    )
    for node, answer in visible.items():
        try:
            if ray.get(answer):
                continue
        except left:  # a node that has left the cluster reads and writes nothing
            continue
        raise InputError(
            place,
            "must be seen by all nodes",
            f"{path}, which is not on {hosts[node]} ({node[:8]})",
            f"Give a shared folder{' or s3://BUCKET/PREFIX' if place == 'folder' else ''}.",
        )


def _appears(path: str) -> bool:
    """Return True once the path exists, False if it does not appear in time."""
    end = time.monotonic() + _MAX_DELAY_SECONDS
    while not Path(path).exists():
        if time.monotonic() >= end:
            return False
        time.sleep(0.1)
    return True
