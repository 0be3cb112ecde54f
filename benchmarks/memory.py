"""Memory of processes, read from Linux's /proc. A megabyte is a million bytes."""

import ctypes
from collections.abc import Callable, Iterator
from pathlib import Path

_PROC = Path("/proc")


def peak_megabytes() -> float:
    """Return the most memory that this process has held, shared memory included.

    getrusage is no use here: its peak begins with the memory of the process that started this one.
    """
    return _megabytes(_status(_PROC / "self"), "VmHWM")


def rise_megabytes(work: Callable[[], object]) -> float:
    """Return how far this process's memory rises while `work` runs."""
    # The allocator keeps freed memory, which would hide the rise.
    ctypes.CDLL(None).malloc_trim(0)
    before = _megabytes(_status(_PROC / "self"), "VmRSS")
    (_PROC / "self" / "clear_refs").write_text("5", encoding="ascii")  # resets the peak
    work()
    return peak_megabytes() - before


def available_megabytes() -> float:
    """Return the memory that new processes of the machine can use."""
    return _megabytes(_fields((_PROC / "meminfo").read_text(encoding="ascii")), "MemAvailable")


def tree_megabytes(root: int) -> Iterator[tuple[int, str, float, float]]:
    """Yield the pid, name, peak memory and private memory of `root` and of all its descendants."""
    processes = {path.name: _status(path) for path in _PROC.iterdir() if path.name.isdigit()}
    found, waiting = set[str](), [str(root)]
    while waiting:
        found.add(waiting[-1])
        parent = waiting.pop()
        waiting += [number for number, status in processes.items() if status.get("PPid") == parent]
    for number in found & processes.keys():
        status = processes[number]
        if "VmHWM" in status:
            yield (
                int(number),
                status["Name"],
                _megabytes(status, "VmHWM"),
                _megabytes(status, "RssAnon"),
            )


def _status(process: Path) -> dict[str, str]:
    try:
        return _fields((process / "status").read_text(encoding="utf-8"))
    except (FileNotFoundError, ProcessLookupError):
        return {}  # it ended after it was listed


def _fields(text: str) -> dict[str, str]:
    return {
        name: value.strip()
        for name, _, value in (line.partition(":") for line in text.splitlines())
    }


def _megabytes(fields: dict[str, str], name: str) -> float:
    return int(fields[name].split()[0]) * 1024 / 1e6
