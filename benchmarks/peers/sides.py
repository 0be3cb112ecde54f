"""The side of the comparison: adapters as processes, each under the Python of its peer's environment."""

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
    """Someone to measure.

    `environment`: name of its virtual environment, None for the project's own. `measures`: what its adapter answers.
    """

    name: str
    adapter: str
    environment: str | None
    measures: frozenset[str]

    @property
    def python(self) -> Path:
        """The interpreter that its adapter runs under."""
        return (
            Path(sys.executable)
            if self.environment is None
            else ENVIRONMENTS / self.environment / "bin" / "python"
        )


class Side:
    """An adapter's process: asked one thing at a time, idle in between."""

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
        """An answer of numbers by name.

        Raises:
            RuntimeError: if the adapter ended without one.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"measure": measure} | values) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(
                f"{self.peer.name}: {measure} failed:\n{self.log.read_text(encoding='utf-8')[-2000:]}"
            )
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
    """One search in a process of its own: `epochs`, `seconds` as the adapter counts them, and `total`, the process's seconds."""
    start = time.perf_counter()
    with Side(peer, data, folder) as side:
        found = side.ask("search")
    return {**found, "total": time.perf_counter() - start}
