"""Runs of the project's commands as a user would start them, with the memory that they take."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.memory import available_megabytes, tree_megabytes

_INTERVAL = 0.5
"""Seconds between two measurements of a running command's memory."""


@dataclass
class Answer:
    """JSON output of a command, and the memory that it took, in MB.

    `own`: peak of its own process. `worker`: peak of the largest of Ray's workers; `private`:
    the same without the memory mapped from the object store. `machine`: the largest drop of the
    machine's available memory.
    """

    output: dict[str, Any]
    own: float = 0.0
    worker: float = 0.0
    private: float = 0.0
    machine: float = 0.0


def tune(
    folder: Path, space: Path, *flags: str, look: Callable[[], object] = lambda: None
) -> Answer:
    """Run a search, and call `look` twice a second while it runs."""
    return _run("recsys.tune", "--space", str(space), "--dir", str(folder), *flags, look=look)


def preprocess(folder: Path, *flags: str) -> Answer:
    """Prepare data in `folder`."""
    return _run("recsys.preprocess", "--dir", str(folder), *flags)


def _run(module: str, *flags: str, look: Callable[[], object] = lambda: None) -> Answer:
    command = [sys.executable, "-m", module, *flags, "--json"]
    answer, before = Answer({}), available_megabytes()
    # Files, because a command stops when a pipe is full and no process reads it.
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        with subprocess.Popen(command, stdout=output, stderr=errors, text=True) as process:
            while process.poll() is None:
                _note_memory(answer, process.pid)
                answer.machine = max(answer.machine, before - available_megabytes())
                look()
                time.sleep(_INTERVAL)
        output.seek(0)
        errors.seek(0)
        if process.returncode:
            raise RuntimeError(
                f"{' '.join(command)} ended with exit code {process.returncode}: "
                f"{errors.read()[-2000:]}"
            )
        answer.output = json.loads(output.read())
    return answer


def _note_memory(answer: Answer, root: int) -> None:
    for number, name, peak, private in tree_megabytes(root):
        if number == root:
            answer.own = max(answer.own, peak)
        elif name.startswith("ray::"):
            answer.worker, answer.private = max(answer.worker, peak), max(answer.private, private)
