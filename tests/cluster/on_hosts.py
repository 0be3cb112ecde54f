"""A cluster that `ray up` makes of hosts on this machine by the project's own on-premise file, as a user does it."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from recsys.config_files import dump_yaml

from .hosts import Host, hosts

ROOT = Path(__file__).parents[2]
GIVE_UP_SECONDS = 300.0
S3_PORT = 5555
_STORE_BYTES = 300_000_000


@dataclass(frozen=True)
class Cluster:
    """A running cluster: its hosts by name, the file that `ray` is told, and the environment of the user's own machine."""

    hosts: dict[str, Host]
    file: Path
    environment: dict[str, str]

    def ray(self, *arguments: str) -> str:
        """Run a command of `ray` on the user's machine to its end; what it prints."""
        command = [_program("ray"), *arguments]
        done = subprocess.run(
            command, cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=GIVE_UP_SECONDS, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start(self, command: str, output: Path) -> subprocess.Popen[str]:
        """Start a command on the head by `ray exec`, attached; what it prints goes to `output`."""
        told = [_program("ray"), "exec", str(self.file), command]
        with output.open("w") as stream:
            return subprocess.Popen(told, cwd=ROOT, env=self.environment, stdout=stream, stderr=subprocess.STDOUT, text=True)

    def alive(self) -> set[str]:
        """Addresses of the nodes that the head holds for alive, its own included."""
        look = 'import ray, json; ray.init(log_to_driver=False); print(json.dumps([n for n in ray.nodes() if n["Alive"]]))'
        told = self.hosts["head"].run(f"python -c {json.dumps(look)} 2> /dev/null", timeout=GIVE_UP_SECONDS)
        return {node["NodeManagerAddress"] for node in json.loads(told.splitlines()[-1])}


@contextmanager
def cluster_up(folder: Path, shared: Path) -> Iterator[Cluster]:
    """A head and four workers of one CPU each, which all see `shared` as the project's folder `experiments`; down in the end.

    Args:
        folder: where the hosts' disks lie, and the user's home.
        shared: the folder for the results.
    """
    home = folder / "home"
    home.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "MLFLOW_"))}
    environment |= {"HOME": str(home), "TMPDIR": str(home), "RAY_TMPDIR": str(home), "RAY_UP_enable_autoscaler_v2": "0"}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    with hosts(
        folder, ["head", "w1", "w2", "w3", "w4"], [ROOT, Path(sys.prefix), Path(sys.base_prefix), folder, shared]
    ) as running:
        file = folder / "cluster.yaml"
        file.write_text(dump_yaml(_on_these(running, home, shared, f"test-{os.getpid()}")))
        cluster = Cluster(running, file, environment)
        cluster.ray("get-auth-token", "--generate")
        cluster.ray("up", "-y", str(file))
        wait_until(lambda: cluster.alive() == {host.address for host in running.values()})
        yield cluster
        cluster.ray("down", "-y", str(file))
        assert running["head"].processes("raylet") == []


def _on_these(running: dict[str, Host], home: Path, shared: Path, name: str) -> dict[str, Any]:
    """The on-premise file for these hosts; of its commands those that install are replaced by links to what is here."""
    tree: dict[str, Any] = yaml.safe_load((ROOT / "configs/clusters/on_premise.yaml").read_text(encoding="utf-8"))
    head, *workers = running.values()
    tree["cluster_name"] = name
    tree["provider"] |= {"head_ip": head.address, "worker_ips": [worker.address for worker in workers]}
    tree["auth"] = {"ssh_user": "root", "ssh_private_key": str(head.key)}
    tree["file_mounts"]["~/.ray/auth_token"] = str(home / ".ray/auth_token")
    kept = [command for command in tree["setup_commands"] if "~/uv" not in command]
    kept = [command.replace("/srv/recsys", str(shared)) for command in kept]
    # Where S3 is, for a test that has one on the head: Ray's processes have it from their start.
    place = {"ENDPOINT_URL": f"http://{head.address}:{S3_PORT}", "DEFAULT_REGION": "us-east-1", "EC2_METADATA_DISABLED": "true"}
    place |= {"ACCESS_KEY_ID": "id", "SECRET_ACCESS_KEY": "secret"}
    told = " ".join(f"AWS_{name}={value}" for name, value in place.items())
    tree["setup_commands"] = [*kept, f"ln -sfn {sys.prefix} ~/venv", f"echo export {told} >> ~/.recsys-env"]
    for commands, size in (("head_start_ray_commands", ""), ("worker_start_ray_commands", "--num-cpus=1")):
        sized = f"ray start {size} --object-store-memory={_STORE_BYTES}"
        tree[commands] = [command.replace("ray start", sized) for command in tree[commands]]
    return tree


def _program(name: str) -> str:
    return str(Path(sys.executable).parent / name)


def wait_until(reached: Callable[[], bool]) -> None:
    """Look again and again until it is so."""
    deadline = time.monotonic() + GIVE_UP_SECONDS
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.2)
