"""The autoscaler on Kubernetes; `test_resources` covers the file of `ray up`."""

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
import requests
import yaml
from ray.autoscaler._private.kuberay import node_provider

from recsys.cluster import autoscaling
from recsys.cluster.resources import Slots
from recsys.config.schema import Config, replace_values

MANIFEST = Path(__file__).parents[1] / "configs/clusters/ray_cluster.yaml"


class Server:
    """Kubernetes' API for a pod of the RayCluster `recsys`, which the manifest describes."""

    def __init__(self) -> None:
        self.cluster = yaml.safe_load(MANIFEST.read_text(encoding="utf-8"))
        self.cluster["metadata"]["namespace"] = "team"
        self.status = 200

    def get(self, url: str, headers: dict[str, str], **_settings: Any) -> Any:
        assert url == "https://10.0.0.1:443/apis/ray.io/v1/namespaces/team/rayclusters/recsys"
        assert headers == {"Authorization": "Bearer secret"}
        answer = requests.Response()
        answer.status_code, answer.url = self.status, url
        return (
            answer
            if self.status != 200
            else SimpleNamespace(status_code=200, json=lambda: self.cluster)
        )


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Server:
    """A pod whose driver sees one node, a head without CPUs."""
    for name, text in (("namespace", "team"), ("token", "secret")):
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(autoscaling, "POD_NAMESPACE", tmp_path / "namespace")
    monkeypatch.setattr(node_provider, "IN_CLUSTER_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(node_provider.url_from_resource, "__defaults__", ("v1", "10.0.0.1:443"))
    monkeypatch.setenv("RAY_CLUSTER_NAME", "recsys")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(
        ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": 0.0}, "Labels": {}}]
    )
    server = Server()
    monkeypatch.setattr(requests, "get", server.get)
    return server


def count(**resources: object) -> int:
    return Slots(
        replace_values(Config(), {f"resources.{name}": value for name, value in resources.items()})
    ).count()


def test_slots_on_nodes_that_kubernetes_can_add_count(server: Server) -> None:
    # The manifest allows 8 workers with 8 CPUs, and 4 workers with 4 CPUs and a GPU.
    assert count() == 8 * 8 + 4 * 4
    assert count(gpu=0.25) == 4 * 4
    server.cluster["spec"]["workerGroupSpecs"][0]["labels"] = {"disk": "fast"}
    assert count(cpu=2.0, custom={"disk": "fast"}) == 8 * 4


def test_requests_that_no_group_of_workers_can_satisfy(server: Server) -> None:
    with pytest.raises(
        ValueError, match=r"resources\.cpu: must be at most what one node has, 8, but got 9\."
    ):
        count(cpu=9.0)
    server.cluster["spec"]["enableInTreeAutoscaling"] = False
    with pytest.raises(
        ValueError, match=r"resources\.cpu: must be at most what one node has, 0, but got 1\."
    ):
        count()


def test_a_pod_that_may_not_read_its_cluster_counts_running_nodes(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    server.status = 403
    monkeypatch.setattr(
        ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": 3.0}, "Labels": {}}]
    )
    with caplog.at_level(logging.WARNING):
        assert count() == 3
    assert "The RayCluster recsys cannot be read (403 Client Error" in caplog.text
