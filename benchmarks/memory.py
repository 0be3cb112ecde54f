"""How much memory processes hold, from Linux's /proc. Megabytes are of a million bytes."""

import ctypes
from collections.abc import Callable, Iterator
from pathlib import Path

_PROC = Path("/proc")


def peak_megabytes() -> float:
    """The most memory that this process has held, what it shares included.

    Not getrusage's: that begins with the memory of the process that started this one.
    """
    return _megabytes(_status(_PROC / "self"), "VmHWM")


def rise_megabytes(work: Callable[[], object]) -> float:
    """How far the memory of this process rises above what it holds before while `work` runs."""
    # Memory that was freed and kept for later would hide the rise.
    ctypes.CDLL(None).malloc_trim(0)
    before = _megabytes(_status(_PROC / "self"), "VmRSS")
    (_PROC / "self" / "clear_refs").write_text(
        "5", encoding="ascii"
    )  # the peak is counted from here
    work()
    return peak_megabytes() - before


def available_megabytes() -> float:
    """What the machine can still give."""
    return _megabytes(_fields((_PROC / "meminfo").read_text(encoding="ascii")), "MemAvailable")


def tree_megabytes(root: int) -> Iterator[tuple[int, str, float, float]]:
    """Of the process `root` and all that it started: number, name, peak memory, and memory that it has to itself now."""
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
        return {}  # it has ended since it was listed


def _fields(text: str) -> dict[str, str]:
    return {
        name: value.strip()
        for name, _, value in (line.partition(":") for line in text.splitlines())
    }


def _megabytes(fields: dict[str, str], name: str) -> float:
    return int(fields[name].split()[0]) * 1024 / 1e6
