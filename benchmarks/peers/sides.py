"""Processes of the adapters, each with the Python of its peer's environment."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

ROOT = Path(__file__).parents[2]
ENVIRONMENTS = Path(__file__).parent / ".venv"


@dataclass(frozen=True)
class Peer:
    """A project to measure.

    `environment`: name of its virtual environment, None for recsys' own. `measures`: names of the
    measurements that its adapter supports.
    """

    name: str
    adapter: str
    environment: str | None
    measures: frozenset[str]

    @property
    def python(self) -> Path:
        """Interpreter of its adapter."""
        return (
            Path(sys.executable)
            if self.environment is None
            else ENVIRONMENTS / self.environment / "bin" / "python"
        )


class Side:
    """Process of an adapter, which answers one request at a time and is idle in between."""

    def __init__(self, peer: Peer, data: Path, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.peer = peer
        self.log = folder / "log.txt"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [peer.python, "-m", f"benchmarks.peers.{peer.adapter}", data],
                cwd=folder,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def ask(self, measure: str, **values: int) -> Mapping[str, float]:
        """Request a measurement and return its numbers by name.

        Raises:
            RuntimeError: if the adapter ended without an answer.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"measure": measure} | values) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            log = self.log.read_text(encoding="utf-8")[-2000:]
            raise RuntimeError(f"{self.peer.name}: {measure} failed:\n{log}")
        answer: dict[str, float] = json.loads(line)
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.process.communicate()


def run_search(peer: Peer, data: Path, folder: Path) -> Mapping[str, float]:
    """Run one search in a process of its own.

    Returns:
        `epochs` and `seconds` as the adapter counts them, and `total`, the seconds of the process.
    """
    start = time.perf_counter()
    with Side(peer, data, folder) as side:
        found = side.ask("search")
    return {**found, "total": time.perf_counter() - start}
