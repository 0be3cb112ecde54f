"""Simulated hosts for `ray up` on this machine, each with its address, processes, home and sshd.

A host is one tree of processes in its own namespaces, with its own /tmp. A virtual cable connects
it to a bridge that has no other connection. All hosts see the same file system, like machines with
a shared folder. Killing the tree is like a power cut.
"""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

NEEDED = ("ip", "unshare", "nsenter", "ssh", "ssh-keygen", "rsync", "tmux", "/usr/sbin/sshd")
GIVE_UP_SECONDS = 60.0

_INIT = r"""
set -e
disk=$1; address=$2; name=$3; shift 3
for shared in "$@"; do  # keeps shared folders below /tmp visible in the host's own /tmp
  case $shared in /tmp/*) mkdir -p "$disk$shared"; mount --rbind "$shared" "$disk$shared";; esac
done
mount --bind "$disk/passwd" /etc/passwd  # names the home folder
mount --bind "$disk/hosts" /etc/hosts
mount -t tmpfs -o size=1g,mode=1777 shm /dev/shm
mount -t proc proc /proc
cd "$disk/tmp"
mount --rbind "$disk/tmp" /tmp
hostname "$name"
ip link set lo up
until ip address add "$address/24" dev eth0 2>&1; do sleep 0.05; done  # until the cable exists
ip link set eth0 up
ip route add default dev eth0  # lets programs find their own address
cd /
exec /usr/sbin/sshd -D -e -f "$disk/sshd_config"
"""


def why_not() -> str | None:
    """Return the reason why no hosts can run here, None if they can."""
    if os.geteuid() != 0:
        return "hosts in network namespaces need root"
    missing = [name for name in NEEDED if shutil.which(name) is None]
    packages = "iproute2 util-linux openssh-client openssh-server rsync tmux"
    return f"missing: {', '.join(missing)} (Debian: {packages})" if missing else None


@dataclass
class Host:
    """A running host; `key` is the private key with which root logs in."""

    name: str
    address: str
    cable: str
    key: Path
    process: subprocess.Popen[bytes]

    def run(self, command: str, timeout: float = GIVE_UP_SECONDS) -> str:
        """Run a command in a login shell by ssh, and return its output."""
        options = (
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "IdentitiesOnly=yes",
            "BatchMode=yes",
            "LogLevel=ERROR",
        )
        flags = [flag for option in options for flag in ("-o", option)]
        ssh = [
            "ssh",
            "-i",
            str(self.key),
            *flags,
            f"root@{self.address}",
            f"bash -lc '. ~/.bashrc; {command}'",
        ]
        return subprocess.run(
            ssh, check=True, capture_output=True, text=True, timeout=timeout
        ).stdout

    def processes(self, name: str = "") -> list[int]:
        """Return this machine's pids of the host's processes with `name` in their command line."""
        init = _child(self.process)
        if init is None:
            return []
        namespace, found = Path(f"/proc/{init}/ns/pid").readlink(), []
        for entry in Path("/proc").iterdir():
            with suppress(OSError):  # it may end while it is read
                if entry.name.isdigit() and (entry / "ns/pid").readlink() == namespace:
                    line = (
                        (entry / "cmdline")
                        .read_bytes()
                        .replace(b"\0", b" ")
                        .decode(errors="replace")
                    )
                    found += [int(entry.name)] * (name in line)
        return found

    def kill(self, name: str) -> None:
        """Kill every process with `name` in its command line.

        Raises:
            ProcessLookupError: if no process has it.
        """
        if not (found := self.processes(name)):
            raise ProcessLookupError(f"no {name} on {self.name}")
        for pid in found:
            with suppress(ProcessLookupError):  # a process may end with another one
                os.kill(pid, signal.SIGKILL)

    def unplug(self) -> None:
        """Cut the cable, so that packets are lost without an error."""
        _ip("link", "set", self.cable, "down")

    def power_off(self) -> None:
        """Cut the cable, then kill all processes at once, so that none can close a connection."""
        # The kernel deletes the cable some time after the host, so delete it first.
        _ip("link", "delete", self.cable)
        # The kernel then kills its child, the host's first process, and with that all others.
        self.process.kill()
        self.process.wait()


@contextmanager
def hosts(folder: Path, names: Sequence[str], shares: Sequence[Path]) -> Iterator[dict[str, Host]]:
    """Run hosts, and yield them by name.

    Args:
        folder: the folder for their disks.
        names: names of the hosts, up to 9 letters each.
        shares: folders that all hosts see; they see everything outside of /tmp anyway.
    """
    prefix, network = f"rs{os.getpid() % 100000}", f"10.77.{os.getpid() % 256}"
    key = folder / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    Path("/run/sshd").mkdir(exist_ok=True)  # sshd needs it
    running: dict[str, Host] = {}
    _ip("link", "add", f"{prefix}-br", "type", "bridge")
    try:
        _ip("address", "add", f"{network}.1/24", "dev", f"{prefix}-br")
        _ip("link", "set", f"{prefix}-br", "up")
        for number, name in enumerate(names):
            address = f"{network}.{10 + number}"
            disk = _make_disk(folder / name, name, address, key)
            process = _start(disk, name, address, shares)
            host = running[name] = Host(name, address, f"{prefix}{name}", key, process)
            _ip(
                "link",
                "add",
                host.cable,
                "type",
                "veth",
                "peer",
                "name",
                "eth0",
                "netns",
                str(_init_of(process, disk)),
            )
            _ip("link", "set", host.cable, "master", f"{prefix}-br", "up")
        for host in running.values():
            _wait_for_ssh(host, folder / host.name)
        yield running
    finally:
        for host in running.values():
            if host.process.poll() is None:
                host.power_off()
        _ip("link", "delete", f"{prefix}-br")


def _make_disk(disk: Path, name: str, address: str, key: Path) -> Path:
    """Create a host's own files, and return their folder."""
    home = disk / "home"
    for folder in (disk / "tmp", home):
        folder.mkdir(parents=True)
    (disk / "tmp").chmod(0o1777)
    (home / ".bashrc").touch()
    login = "root:x:0:0:root:/root:"
    users = Path("/etc/passwd").read_text(encoding="utf-8").splitlines()
    (disk / "passwd").write_text(
        "\n".join(f"root:x:0:0:root:{home}:/bin/bash" if u.startswith(login) else u for u in users)
        + "\n"
    )
    (disk / "hosts").write_text(f"127.0.0.1 localhost\n{address} {name}\n")
    shutil.copy(key.with_suffix(".pub"), disk / "authorized_keys")
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", disk / "host_key"], check=True
    )
    settings = {
        "ListenAddress": address,
        "HostKey": disk / "host_key",
        "AuthorizedKeysFile": disk / "authorized_keys",
        "StrictModes": "no",  # other users may write to parent folders of the disk
        "PermitRootLogin": "prohibit-password",
        "PidFile": "none",
        "UsePAM": "no",
        "MaxStartups": "100",
        "MaxSessions": "100",
    }
    (disk / "sshd_config").write_text(
        "".join(f"{setting} {value}\n" for setting, value in settings.items())
    )
    return disk


def _start(disk: Path, name: str, address: str, shares: Sequence[Path]) -> subprocess.Popen[bytes]:
    """Start a host's first process, as the child of a process outside that it dies with."""
    namespaces = (
        "--net",
        "--mount",
        "--pid",
        "--ipc",
        "--uts",
        "--fork",
        "--kill-child=SIGKILL",
        "--propagation",
        "private",
    )
    command = ["unshare", *namespaces, "bash", "-c", _INIT, "init", disk, address, name, *shares]
    environment = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "C.UTF-8",
    }
    with (disk / "log").open("wb") as log:
        return subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,
        )


def _child(process: subprocess.Popen[bytes]) -> int | None:
    try:
        children = (
            Path(f"/proc/{process.pid}/task/{process.pid}/children")
            .read_text(encoding="ascii")
            .split()
        )
    except FileNotFoundError:
        return None
    return int(children[0]) if children else None


def _init_of(process: subprocess.Popen[bytes], disk: Path) -> int:
    deadline = time.monotonic() + GIVE_UP_SECONDS
    while (init := _child(process)) is None:
        if process.poll() is not None or time.monotonic() > deadline:
            raise TimeoutError(
                f"{disk.name} did not start: {(disk / 'log').read_text(encoding='utf-8')}"
            )
        time.sleep(0.02)
    return init


def _wait_for_ssh(host: Host, disk: Path) -> None:
    deadline = time.monotonic() + GIVE_UP_SECONDS
    while True:
        try:
            host.run("true")
        except subprocess.CalledProcessError as error:
            if time.monotonic() > deadline:
                log = (disk / "log").read_text(encoding="utf-8")
                raise TimeoutError(
                    f"{host.name} does not answer by ssh ({error.stderr}): {log}"
                ) from error
            time.sleep(0.1)
        else:
            return


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)
