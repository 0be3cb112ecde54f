"""Whether all nodes of a cluster see what tasks and trials are to read and write.

Stands before the work: a folder that one node alone has would be filled by each node for itself, and nobody would notice.
"""

import time
from pathlib import Path

from recsys.errors import InputError
from recsys.storage.files import temporary_sibling
from recsys.storage.s3 import url_of

_PATIENCE_SECONDS = 5.0
"""How long a network file system may take to show what another node has made."""


def require_on_all_nodes(place: str, *paths: Path) -> None:
    """Check that every node of the connected cluster sees each path; of a folder, that it is the same one.

    `place`: what the mistake is about. A folder is made where there is none.

    Raises:
        InputError: if a node does not see one.
    """
    import ray

    others = {node["NodeID"]: node["NodeManagerHostname"] for node in ray.nodes() if node["Alive"]}  # type: ignore[no-untyped-call]
    others.pop(ray.get_runtime_context().get_node_id(), None)
    for path in paths:
        if not others or url_of(path) is not None:
            continue
        if path.is_file():
            _require(place, path, path, others)
        else:
            with temporary_sibling(path / "seen") as marker:
                _require(place, path, marker, others)


def _require(place: str, path: Path, wanted: Path, nodes: dict[str, str]) -> None:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    look = ray.remote(num_cpus=0, max_retries=0)(_sees)
    on = {node: NodeAffinitySchedulingStrategy(node, soft=False) for node in nodes}
    answers = {
        node: look.options(scheduling_strategy=on[node]).remote(str(wanted)) for node in nodes
    }
    gone = (
        ray.exceptions.NodeDiedError,
        ray.exceptions.TaskUnschedulableError,
        ray.exceptions.WorkerCrashedError,
    )
    for node, answer in answers.items():
        try:
            seen = ray.get(answer)
        except gone:  # a node that has left the cluster meanwhile sees nothing and writes nothing
            continue
        if not seen:
            remedy = "Give a shared folder" + (
                " or s3://BUCKET/PREFIX." if place == "folder" else "."
            )
            raise InputError(
                place,
                "must be seen by all nodes",
                f"{path}, which is not on {nodes[node]} ({node[:8]})",
                remedy,
            )


def _sees(path: str) -> bool:
    end = time.monotonic() + _PATIENCE_SECONDS
    while not Path(path).exists():
        if time.monotonic() >= end:
            return False
        time.sleep(0.1)
    return True
