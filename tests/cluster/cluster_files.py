"""Mistakes in the files for `ray up`, by Ray's schema and by checks that Ray's schema lacks.

Each mistake is a line of text that begins with its place in the file.
"""

import re
import shlex
import subprocess
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import botocore.session
import click
import jsonschema
from botocore.validate import ParamValidator
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.scripts import scripts

PROVIDER_KEYS = {
    "aws": {
        "type",
        "region",
        "availability_zone",
        "cache_stopped_nodes",
        "use_internal_ips",
        "key_pair",
    },
    "local": {"type", "head_ip", "worker_ips"},
}
"""Keys of a provider that Ray reads; Ray's schema allows any.

`security_group` is left out, since it opens the machines to the world.
"""
COMMANDS = (
    *("initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands"),
    *("head_start_ray_commands", "worker_start_ray_commands"),
)
TOKEN = "~/.ray/auth_token"


def mistakes(tree: dict[str, Any], root: Path) -> list[str]:
    """Return the mistakes of a file for `ray up`, which runs in `root`."""
    try:
        ready = prepare_config(tree)
        validate_config(ready)
    except jsonschema.ValidationError as error:
        return [f"{error.json_path.removeprefix('$.')}: {error.message}"]
    except (SystemExit, ValueError) as error:  # Ray prints some mistakes and ends the process
        return [f"the file: {error}"]
    provider = tree["provider"]
    found = [
        f"provider.{key}: unknown" for key in provider.keys() - PROVIDER_KEYS[provider["type"]]
    ]
    if provider["type"] == "aws":
        found += _of_aws(tree)
    found += _of_mounts(tree, root)
    for name in COMMANDS:
        for command in tree.get(name, []):
            found += [f"{name}: {mistake} ({command})" for mistake in _of_command(command)]
    return [*found, *_of_whole(tree)]


def _of_aws(tree: Mapping[str, Any]) -> Iterator[str]:
    region = tree["provider"].get("region", "")
    if not re.fullmatch(r"[a-z]{2}(-[a-z]+)+-\d", region):
        yield f"provider.region: must be a region, but is {region!r}"
    for zone in filter(None, tree["provider"].get("availability_zone", "").split(",")):
        if not re.fullmatch(rf"{region}[a-z]", zone):
            yield f"provider.availability_zone: {zone!r} is not in {region}"
    ec2 = botocore.session.get_session().get_service_model("ec2")
    shape = ec2.operation_model("RunInstances").input_shape
    for name, node_type in tree["available_node_types"].items():
        place, node = f"available_node_types.{name}", node_type["node_config"]
        report = ParamValidator().validate({"MinCount": 1, "MaxCount": 1, **node}, shape)
        yield from (
            f"{place}.node_config: {line}" for line in report.generate_report().splitlines()
        )
        if node_type.get("min_workers", 0) > node_type.get("max_workers", tree["max_workers"]):
            yield f"{place}.min_workers: must be at most max_workers"
        if not node.get("SecurityGroupIds"):
            yield (
                f"{place}.node_config.SecurityGroupIds: must be given: "
                "Ray makes a group that is open to the world"
            )
        if "InstanceType" not in node or "ImageId" not in node:
            yield (
                f"{place}.node_config: must have InstanceType and ImageId: "
                "Ray's own image has another Python"
            )


def _of_mounts(tree: Mapping[str, Any], root: Path) -> Iterator[str]:
    for remote, local in tree.get("file_mounts", {}).items():
        # A path in the user's home cannot be checked on this machine.
        if not local.startswith("~") and not (root / local).exists():
            yield f"file_mounts.{remote}: there is no {local}"
    if TOKEN not in tree.get("file_mounts", {}):
        yield f"file_mounts: must copy {TOKEN}"


def _of_command(command: str) -> Iterator[str]:
    parsed = subprocess.run(
        ["bash", "-n", "-c", command], capture_output=True, text=True, check=False
    )
    if parsed.returncode != 0:
        yield f"must be bash: {parsed.stderr.strip()}"
    for single in re.split(r"&&|\|\||;|\(|\)", command):
        if (
            "pip install" in single
            and "-c constraints.txt" not in single
            and not re.search(r"pip install -q [\w-]+==[\w.]+\s*$", single)
        ):
            yield "must install through constraints.txt, or one exact version"
        if "ray start" in single:
            yield from refused_options(single.partition("ray start")[2])
        if "--dashboard-host=" in single and "--dashboard-host=127.0.0.1" not in single:
            yield "must keep the dashboard to the head itself"


def refused_options(options: str) -> list[str]:
    """Return the error of `ray start` about its options, or an empty list."""
    try:
        scripts.start.make_context("start", shlex.split(options))
    except click.UsageError as error:
        return [error.format_message()]
    return []


def _of_whole(tree: Mapping[str, Any]) -> Iterator[str]:
    setup = "\n".join(tree.get("setup_commands", []))
    if not re.search(r"--python 3\.\d+\.\d+\b", setup):
        yield "setup_commands: must fix Python to its third number"
    if "-c constraints.txt" not in setup:
        yield "setup_commands: must install the project through constraints.txt"
    if "RAY_AUTH_MODE=token" not in setup or f"chmod 600 {TOKEN}" not in setup:
        yield "setup_commands: must turn the token on, and make it readable by its owner alone"
    head, worker = (
        "\n".join(tree.get(f"{kind}_start_ray_commands", [])) for kind in ("head", "worker")
    )
    if "--head" not in head or "--autoscaling-config=~/ray_bootstrap_config.yaml" not in head:
        yield "head_start_ray_commands: must start the head with the file that Ray copies to it"
    if "--address=$RAY_HEAD_IP:6379" not in worker:
        yield "worker_start_ray_commands: must join the head"


def pinned(package: str, constraints: str) -> str:
    """Return a package's version in `constraints.txt`, which must be the installed one."""
    found = re.search(rf"^{package}==(.+)$", constraints, re.MULTILINE)
    assert found is not None
    assert version(package) == found[1]
    return found[1]
