"""Addresses on which processes listen, from Linux's /proc."""

import contextlib
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

_LISTEN = "0A"


def listening(pid: int) -> list[IPv4Address | IPv6Address]:
    """Return the addresses on which a process and its descendants listen by TCP."""
    opened: set[str] = set()
    for process in _tree(pid):
        with contextlib.suppress(OSError):  # it has ended
            for descriptor in Path(f"/proc/{process}/fd").iterdir():
                with contextlib.suppress(OSError):
                    opened.add(str(descriptor.readlink()))
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text(encoding="ascii").splitlines()[1:]:
            fields = line.split()
            if fields[3] == _LISTEN and f"socket:[{fields[9]}]" in opened:
                found.append(_address(fields[1].partition(":")[0]))
    return found


def _tree(pid: int) -> set[int]:
    parents: dict[int, int] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The name, in parentheses, may hold anything.
            parents[int(status.parent.name)] = int(
                status.read_text(errors="replace").rpartition(")")[2].split()[1]
            )
    tree = {pid}
    while below := {child for child, parent in parents.items() if parent in tree} - tree:
        tree |= below
    return tree


def _address(text: str) -> IPv4Address | IPv6Address:
    """Parse words of four bytes in this machine's byte order; IPv4 mapped to IPv6 as IPv4."""
    words = [bytes.fromhex(text[start : start + 8])[::-1] for start in range(0, len(text), 8)]
    address = ip_address(b"".join(words))
    return address.ipv4_mapped or address if isinstance(address, IPv6Address) else address
