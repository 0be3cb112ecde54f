"""`ray up cluster.yaml` against a simulated AWS, by Ray's code: from the file to the machines."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import moto
import pytest
import yaml
from ray.autoscaler._private import commands
from ray.autoscaler._private.providers import _get_node_provider
from ray.autoscaler.tags import TAG_RAY_USER_NODE_TYPE

FILE = Path(__file__).parents[2] / "cluster.yaml"
MY_ADDRESS = "203.0.113.7/32"


@pytest.fixture
def tree(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """The file with a security group that was created as the README says."""
    monkeypatch.setenv("HOME", str(tmp_path))  # Ray creates a key in ~/.ssh
    monkeypatch.setenv("MOTO_IAM_LOAD_MANAGED_POLICIES", "true")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    # Ray waits 30 s until AWS knows a new role everywhere.
    monkeypatch.setattr("ray.autoscaler._private.aws.config.time.sleep", lambda _seconds: None)
    found = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    with moto.mock_aws():
        ec2 = boto3.client("ec2", found["provider"]["region"])
        group = ec2.create_security_group(GroupName="recsys", Description="recsys")["GroupId"]
        ssh = {
            "IpProtocol": "tcp",
            "FromPort": 22,
            "ToPort": 22,
            "IpRanges": [{"CidrIp": MY_ADDRESS}],
        }
        among = {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group}]}
        ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[ssh, among])
        for node_type in found["available_node_types"].values():
            node_type["node_config"]["SecurityGroupIds"] = [group]
        yield found


def launch(tree: dict[str, Any]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Return the file as Ray completes it, and AWS's description of a machine of each type."""
    ready = commands._bootstrap_config(tree, no_config_cache=True)
    provider = _get_node_provider(ready["provider"], ready["cluster_name"])
    for name, node_type in ready["available_node_types"].items():
        # Only the head gets the role that may start workers.
        of_head = ready["head_node"] if name == ready["head_node_type"] else {}
        provider.create_node(
            {**of_head, **node_type["node_config"]}, {TAG_RAY_USER_NODE_TYPE: name}, 1
        )
    ec2 = boto3.client("ec2", tree["provider"]["region"])
    machines = {}
    for reservation in ec2.describe_instances()["Reservations"]:
        for machine in reservation["Instances"]:
            name = next(
                tag["Value"] for tag in machine["Tags"] if tag["Key"] == TAG_RAY_USER_NODE_TYPE
            )
            machines[name] = machine
    return ready, machines


def test_the_requested_machines(tree: dict[str, Any]) -> None:
    ready, machines = launch(tree)
    assert machines.keys() == {"head", "cpu_worker", "gpu_worker"}
    assert {
        name for name, machine in machines.items() if machine.get("InstanceLifecycle") == "spot"
    } == {
        "cpu_worker",
        "gpu_worker",
    }
    ec2 = boto3.client("ec2", tree["provider"]["region"])
    for name, machine in machines.items():
        asked = tree["available_node_types"][name]["node_config"]
        assert (machine["InstanceType"], machine["ImageId"]) == (
            asked["InstanceType"],
            asked["ImageId"],
        )
        (disk,) = machine["BlockDeviceMappings"]
        (volume,) = ec2.describe_volumes(VolumeIds=[disk["Ebs"]["VolumeId"]])["Volumes"]
        wanted = asked["BlockDeviceMappings"][0]["Ebs"]
        assert (volume["Size"], volume["VolumeType"], volume["Encrypted"]) == (
            wanted["VolumeSize"],
            wanted["VolumeType"],
            True,
        )
        assert machine["KeyName"] == Path(ready["auth"]["ssh_private_key"]).stem
        assert machine["Placement"]["AvailabilityZone"] in tree["provider"][
            "availability_zone"
        ].split(",")
    assert {name for name, machine in machines.items() if "IamInstanceProfile" in machine} == {
        "head"
    }
    resources = {
        name: node_type["resources"] for name, node_type in ready["available_node_types"].items()
    }
    assert resources["head"]["CPU"] == 0
    assert "GPU" not in resources["cpu_worker"]
    assert resources["gpu_worker"]["GPU"] >= 1
    assert resources["cpu_worker"]["CPU"] >= 1
    assert resources["gpu_worker"]["CPU"] >= 1


def open_to(tree: dict[str, Any], machine: dict[str, Any]) -> set[tuple[str, int]]:
    """Return the address ranges that reach a machine from outside, each with the port."""
    ec2 = boto3.client("ec2", tree["provider"]["region"])
    groups = ec2.describe_security_groups(
        GroupIds=[group["GroupId"] for group in machine["SecurityGroups"]]
    )["SecurityGroups"]
    rules = [rule for group in groups for rule in group["IpPermissions"]]
    return {(entry["CidrIp"], rule["FromPort"]) for rule in rules for entry in rule["IpRanges"]}


def test_only_ssh_from_the_users_address_is_allowed(tree: dict[str, Any]) -> None:
    _, machines = launch(tree)
    for machine in machines.values():
        assert open_to(tree, machine) == {(MY_ADDRESS, 22)}


def test_a_file_without_security_groups_would_be_open_to_the_world(tree: dict[str, Any]) -> None:
    # Ray adds this rule whatever `provider.security_group` says, so the file names a group that
    # exists already.
    for node_type in tree["available_node_types"].values():
        del node_type["node_config"]["SecurityGroupIds"]
    tree["provider"]["security_group"] = {
        "GroupName": "made-by-ray",
        "IpPermissions": [
            {
                "FromPort": 22,
                "ToPort": 22,
                "IpProtocol": "tcp",
                "IpRanges": [{"CidrIp": MY_ADDRESS}],
            }
        ],
    }
    _, machines = launch(tree)
    assert ("0.0.0.0/0", 22) in open_to(tree, machines["head"])
