"""Checks of the cluster files, which find plausible mistakes before a machine costs money."""

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from mlflow.cli import server as mlflow_server

from tests.cluster import kubernetes_files
from tests.cluster.cluster_files import mistakes, pinned
from tests.tracking.server import running_server

ROOT = Path(__file__).parents[2]
CONSTRAINTS = (ROOT / "constraints.txt").read_text(encoding="utf-8")
CONFIGS = Path("configs/clusters")
RAY_CLUSTER, RAY_JOB = CONFIGS / "ray_cluster.yaml", CONFIGS / "ray_job.yaml"
MANIFESTS = (CONFIGS / "kubernetes.yaml", RAY_CLUSTER, RAY_JOB)
PYTHON = "3.11.14"


def read(file: Path) -> Any:
    return yaml.safe_load((ROOT / file).read_text(encoding="utf-8"))


def documents(file: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((ROOT / file).read_text(encoding="utf-8")))


def test_every_file_is_checked() -> None:
    assert {file.name for file in (ROOT / CONFIGS).iterdir()} == {
        "on_premise.yaml",
        *(file.name for file in MANIFESTS),
    }


@pytest.mark.parametrize("file", [Path("cluster.yaml"), CONFIGS / "on_premise.yaml"], ids=str)
def test_a_file_for_ray_up(file: Path) -> None:
    assert mistakes(read(file), ROOT) == []
    setup = "\n".join(read(file)["setup_commands"])
    assert f"--python {PYTHON} " in setup


@pytest.mark.parametrize("file", MANIFESTS, ids=str)
def test_a_manifest_for_kubernetes(file: Path) -> None:
    for document in documents(file):
        assert kubernetes_files.mistakes(document, pinned("ray", CONSTRAINTS)) == []


def test_the_manifests_fit_together() -> None:
    specs = {
        (document["kind"], document["metadata"]["name"]): document["spec"]
        for document in documents(MANIFESTS[0])
    }
    assert set(specs) == {
        ("PersistentVolumeClaim", "recsys-experiments"), ("PersistentVolumeClaim", "recsys-mlflow"),
        ("Deployment", "recsys-mlflow"), ("Service", "recsys-mlflow"),
    }  # fmt: skip
    service, server = (
        specs["Service", "recsys-mlflow"],
        specs["Deployment", "recsys-mlflow"]["template"],
    )
    assert service["selector"].items() <= server["metadata"]["labels"].items()
    (container,) = server["spec"]["containers"]
    assert [port["targetPort"] for port in service["ports"]] == [
        port["containerPort"] for port in container["ports"]
    ]
    for cluster in (read(RAY_CLUSTER)["spec"], read(RAY_JOB)["spec"]["rayClusterSpec"]):
        groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
        volumes = [volume for group in groups for volume in group["template"]["spec"]["volumes"]]
        assert {volume["persistentVolumeClaim"]["claimName"] for volume in volumes} == {
            "recsys-experiments"
        }
        (head,) = cluster["headGroupSpec"]["template"]["spec"]["containers"]
        assert head["env"] == [
            {"name": "MLFLOW_TRACKING_URI", "value": "http://recsys-mlflow:5000"}
        ]


def test_the_mlflow_server_answers_requests_to_its_own_names_alone(tmp_path: Path) -> None:
    (deployment,) = (each for each in documents(MANIFESTS[0]) if each["kind"] == "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    command: list[str] = [*container["command"], *container["args"]]
    flags = command[2:]
    assert command[:2] == ["mlflow", "server"]
    mlflow_server.make_context("server", flags.copy())  # raises if a flag is unknown
    assert container["env"] == [{"name": "MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "value": "false"}]
    (allowed,) = (flag for flag in flags if flag.startswith("--allowed-hosts="))
    with running_server(tmp_path, allowed) as server:
        runs = f"{server.uri}/api/2.0/mlflow/experiments/search?max_results=1"
        hosts = {"recsys-mlflow:5000": 200, "localhost:5000": 200, "elsewhere.example.com": 403}
        assert {
            host: requests.get(runs, headers={"Host": host}, timeout=60).status_code
            for host in hosts
        } == hosts


def test_the_image_has_the_same_versions_as_the_machines_of_ray_up() -> None:
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
    assert f"FROM python:{PYTHON}-slim-bookworm" in lines
    (install,) = (line for line in lines if "'.[cluster]'" in line)
    assert "-c constraints.txt" in install


def test_workers_on_aws_are_spot_machines_started_on_demand() -> None:
    tree = read(Path("cluster.yaml"))
    head, cpu, gpu = (
        tree["available_node_types"][name] for name in ("head", "cpu_worker", "gpu_worker")
    )
    assert (head["max_workers"], head["resources"]) == (0, {"CPU": 0})
    assert "InstanceMarketOptions" not in head["node_config"]
    for worker in (cpu, gpu):
        assert worker["min_workers"] == 0
        assert worker["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert cpu["max_workers"] <= tree["max_workers"] <= cpu["max_workers"] + gpu["max_workers"]


Change = Callable[[dict[str, Any]], object]


def replaced(commands: str, old: str, new: str) -> Change:
    def change(tree: dict[str, Any]) -> None:
        assert any(old in command for command in tree[commands])
        tree[commands] = [command.replace(old, new) for command in tree[commands]]

    return change


def node(tree: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = tree["available_node_types"]["cpu_worker"]["node_config"]
    return found


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (lambda t: t.update(max_worker=3), r"\$: Additional properties"),
        (lambda t: t.update(max_workers="ten"), "max_workers: 'ten'"),
        (lambda t: t.update(head_node_type="heads"), "the file: "),
        (lambda t: t["provider"].pop("region"), r"provider\.region"),
        (lambda t: t["provider"].update(region="us-west"), r"provider\.region"),
        (
            lambda t: t["provider"].update(availability_zone="us-east-1a"),
            r"provider\.availability_zone: 'us-east-1a'",
        ),
        (
            lambda t: t["provider"].update(cache_stoped_nodes=False),
            r"provider\.cache_stoped_nodes: unknown",
        ),
        (
            lambda t: t["provider"].update(security_group={"GroupName": "recsys"}),
            r"provider\.security_group: unknown",
        ),
        (
            lambda t: t["available_node_types"]["cpu_worker"].update(min_worker=1),
            "available_node_types",
        ),
        (
            lambda t: t["available_node_types"]["cpu_worker"].update(min_workers=9),
            r"cpu_worker\.min_workers",
        ),
        (
            lambda t: node(t).update(InstanceTyp="c7i.2xlarge"),
            r"cpu_worker\.node_config: .*InstanceTyp",
        ),
        (
            lambda t: node(t)["BlockDeviceMappings"][0]["Ebs"].update(VolumeSize="60 GB"),
            "VolumeSize",
        ),
        (lambda t: node(t)["BlockDeviceMappings"][0]["Ebs"].update(Volumesize=60), "Volumesize"),
        (lambda t: node(t).update(InstanceMarketOptions={"Type": "spot"}), r"node_config: .*Type"),
        (lambda t: node(t).pop("SecurityGroupIds"), r"cpu_worker\.node_config\.SecurityGroupIds"),
        (
            lambda t: node(t).pop("ImageId"),
            r"cpu_worker\.node_config: must have InstanceType and ImageId",
        ),
        (
            lambda t: t["file_mounts"].update({"~/data": "no-such-folder"}),
            "file_mounts.~/data: there is no no-such-folder",
        ),
        (lambda t: t["file_mounts"].pop("~/.ray/auth_token"), "file_mounts: must copy"),
        (
            replaced("setup_commands", "-c constraints.txt ", ""),
            "setup_commands: must install through constraints",
        ),
        (
            replaced("setup_commands", "uv==0.13.9", "uv"),
            "setup_commands: must install through constraints",
        ),
        (replaced("setup_commands", "3.11.14", "3.11"), "setup_commands: must fix Python"),
        (
            replaced("setup_commands", "RAY_AUTH_MODE=token ", ""),
            "setup_commands: must turn the token on",
        ),
        (
            replaced("setup_commands", "~/.bashrc ||", "~/.bashrc || ("),
            "setup_commands: must be bash",
        ),
        (replaced("head_start_ray_commands", "127.0.0.1", "0.0.0.0"), "head_start.*: must keep"),
        (
            replaced("head_start_ray_commands", "--autoscaling-config", "--autoscaler-config"),
            "head_start.*: No such option",
        ),
        (
            replaced("head_start_ray_commands", "~/ray_bootstrap_config.yaml", "~/cluster.yaml"),
            "head_start.*: must start",
        ),
        (
            replaced("worker_start_ray_commands", "$RAY_HEAD_IP", "head"),
            "worker_start_ray_commands: must join",
        ),
    ],
)
def test_a_mistake_for_ray_up_is_found(change: Change, place: str) -> None:
    tree = copy.deepcopy(read(Path("cluster.yaml")))
    change(tree)
    found = mistakes(tree, ROOT)
    assert len(found) >= 1
    assert re.search(place, "\n".join(found)), found


def worker(tree: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = tree["spec"]["workerGroupSpecs"][0]
    return found


def container(tree: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = worker(tree)["template"]["spec"]["containers"][0]
    return found


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (lambda t: t.update(apiVersion="ray.io/v1alpha1"), "apiVersion"),
        (lambda t: t["spec"].update(rayVersion="2.59.0"), "rayVersion: must be "),
        (lambda t: t["spec"].pop("authOptions"), "authOptions"),
        (
            lambda t: t["spec"].update(enableInTreeAutoScaling=True),
            r"spec\.enableInTreeAutoScaling: unknown",
        ),
        (
            lambda t: t["spec"]["autoscalerOptions"].update(version="2"),
            r"autoscalerOptions\.version: must be one of v1, v2",
        ),
        (
            lambda t: worker(t).update(maxReplicas="8"),
            r"workerGroupSpecs\[0\]\.maxReplicas: must be int",
        ),
        (lambda t: worker(t).update(minReplicas=9), "cpu: must have minReplicas"),
        (
            lambda t: worker(t)["rayStartParams"].update({"num_cpus": "2"}),
            r"cpu\.rayStartParams: No such option",
        ),
        (lambda t: container(t).update(volumeMount=[]), "volumeMount"),
        (
            lambda t: container(t)["resources"]["limits"].update(cpu="16"),
            "cpu: must request its limits",
        ),
        (
            lambda t: worker(t)["template"]["spec"].pop("volumes"),
            "cpu: must see the folder experiments",
        ),
        (lambda t: worker(t)["template"]["spec"].update(restartpolicy="Never"), "restartpolicy"),
    ],
)
def test_a_mistake_for_kubernetes_is_found(change: Change, place: str) -> None:
    tree = read(RAY_CLUSTER)
    change(tree)
    found = kubernetes_files.mistakes(tree, pinned("ray", CONSTRAINTS))
    assert re.search(place, "\n".join(found)), found
