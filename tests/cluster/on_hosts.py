"""A cluster that `ray up` starts on simulated hosts, with the project's on-premise file."""

import fcntl
import json
import os
import pty
import re
import shlex
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from recsys.config.files import dump_yaml
from tests.cluster.hosts import Host, hosts

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
GIVE_UP_SECONDS = 300.0
S3_PORT = 5555
_STORE_BYTES = 300_000_000
_SOONER = (
    "AUTOSCALER_UPDATE_INTERVAL_S=1 "
    "RAY_health_check_period_ms=1000 RAY_health_check_timeout_ms=3000"
)
"""Makes Ray check its nodes every second, not every 5, and drop a silent one after 20 s, not 65."""


@dataclass(frozen=True)
class Cluster:
    """A running cluster: its hosts by name, its file, and the environment of the user's machine."""

    hosts: dict[str, Host]
    file: Path
    environment: dict[str, str]

    def ray(self, *arguments: str) -> str:
        """Run a command of `ray` on the user's machine, and return its output."""
        return self.run(["ray", *arguments])

    def run(self, command: list[str]) -> str:
        """Run a command on the user's machine, and return its output."""
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=GIVE_UP_SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def step(self, name: str, *replaced: tuple[str, str]) -> list[list[str]]:
        """Return the README's commands for a step, with this cluster's file.

        Args:
            name: the step's name in the README's table.
            *replaced: further replacements, as old and new text.
        """
        (line,) = re.findall(
            rf"^\| {re.escape(name)} \| (.*) \|$", README.read_text(encoding="utf-8"), re.MULTILINE
        )
        commands = []
        for command in re.findall("`(.*?)`", line):
            for old, new in (*replaced, ("cluster.yaml", str(self.file))):
                assert old in command
                command = command.replace(old, new)  # noqa: PLW2901
            commands.append(shlex.split(command))
        return commands

    def watch(self, command: list[str], text: str) -> None:
        """Run a command on a terminal until it shows a text, then leave tmux with Ctrl-B D."""
        user, terminal = pty.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 200, 0, 0))
        environment = {**self.environment, "TERM": "xterm"}
        with subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=terminal, stdout=terminal, stderr=terminal
        ) as process:
            os.close(terminal)
            shown = ""
            while text not in shown:
                shown += os.read(user, 10_000).decode(errors="replace")
            os.write(user, b"\x02d")
            with suppress(OSError):  # the command has closed the terminal
                while os.read(user, 10_000):
                    pass
        os.close(user)
        assert process.returncode == 0, shown

    def start(self, command: str, output: Path) -> subprocess.Popen[str]:
        """Start a command on the head by `ray exec`, attached, with its output in a file."""
        return self.begin(["ray", "exec", str(self.file), command], output)

    def begin(self, command: list[str], output: Path) -> subprocess.Popen[str]:
        """Start a command on the user's machine, with its output in a file."""
        with output.open("w") as stream:
            return subprocess.Popen(
                command,
                cwd=ROOT,
                env=self.environment,
                stdout=stream,
                stderr=subprocess.STDOUT,
                text=True,
            )

    def alive(self) -> set[str]:
        """Return the addresses of the nodes that are alive according to the head, with its own."""
        script = (
            "import ray, json; ray.init(log_to_driver=False); "
            'print(json.dumps([n for n in ray.nodes() if n["Alive"]]))'
        )
        output = self.hosts["head"].run(
            f"python -c {json.dumps(script)} 2> /dev/null", timeout=GIVE_UP_SECONDS
        )
        return {node["NodeManagerAddress"] for node in json.loads(output.splitlines()[-1])}


@contextmanager
def cluster_up(folder: Path, shared: Path) -> Iterator[Cluster]:
    """Run a head and four workers of one CPU each; stop them at the end.

    Args:
        folder: the folder for the hosts' disks and the user's home.
        shared: the folder for the results, which all hosts see as the project's `experiments`.
    """
    home = folder / "home"
    home.mkdir()
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("RAY_", "MLFLOW_"))
    }
    environment |= {
        "HOME": str(home),
        "TMPDIR": str(home),
        "RAY_TMPDIR": str(home),
        "RAY_UP_enable_autoscaler_v2": "0",
    }
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    with hosts(
        folder,
        ["head", "w1", "w2", "w3", "w4"],
        [ROOT, Path(sys.prefix), Path(sys.base_prefix), folder, shared],
    ) as running:
        file = folder / "cluster.yaml"
        file.write_text(dump_yaml(_cluster_file(running, home, shared, f"test-{os.getpid()}")))
        cluster = Cluster(running, file, environment)
        cluster.ray("get-auth-token", "--generate")
        (up,), (down,) = cluster.step("start the cluster"), cluster.step("stop the cluster")
        cluster.run(up)
        wait_until(lambda: cluster.alive() == {host.address for host in running.values()})
        yield cluster
        cluster.run(down)
        assert running["head"].processes("raylet") == []


def _cluster_file(running: dict[str, Host], home: Path, shared: Path, name: str) -> dict[str, Any]:
    """Return the on-premise file for these hosts.

    Links to this machine's virtual environment replace the commands that install.
    """
    tree: dict[str, Any] = yaml.safe_load(
        (ROOT / "configs/clusters/on_premise.yaml").read_text(encoding="utf-8")
    )
    head, *workers = running.values()
    tree["cluster_name"] = name
    tree["provider"] |= {
        "head_ip": head.address,
        "worker_ips": [worker.address for worker in workers],
    }
    tree["auth"] = {"ssh_user": "root", "ssh_private_key": str(head.key)}
    tree["file_mounts"]["~/.ray/auth_token"] = str(home / ".ray/auth_token")
    kept = [command for command in tree["setup_commands"] if "~/uv" not in command]
    kept = [command.replace("/srv/recsys", str(shared)) for command in kept]
    # A test may run an S3 server on the head: Ray's processes get its address when they start.
    variables = {
        "ENDPOINT_URL": f"http://{head.address}:{S3_PORT}",
        "DEFAULT_REGION": "us-east-1",
        "EC2_METADATA_DISABLED": "true",
    }
    variables |= {"ACCESS_KEY_ID": "id", "SECRET_ACCESS_KEY": "secret"}
    exported = " ".join(f"AWS_{name}={value}" for name, value in variables.items())
    tree["setup_commands"] = [
        *kept,
        f"ln -sfn {sys.prefix} ~/venv",
        f"echo export {exported} >> ~/.recsys-env",
    ]
    for commands, before, size in (
        ("head_start_ray_commands", _SOONER, ""),
        ("worker_start_ray_commands", "", "--num-cpus=1"),
    ):
        sized = f"{before} ray start {size} --object-store-memory={_STORE_BYTES}"
        tree[commands] = [command.replace("ray start", sized) for command in tree[commands]]
    return tree


def wait_until(reached: Callable[[], bool]) -> None:
    """Poll until `reached` returns True; fail after `GIVE_UP_SECONDS`."""
    deadline = time.monotonic() + GIVE_UP_SECONDS
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.2)
