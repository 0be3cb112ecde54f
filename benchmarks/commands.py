"""Runs of the project's commands as a user would start them, some with the memory they take."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.memory import available_megabytes, tree_megabytes

_INTERVAL = 0.5
"""Seconds between two measurements of a running command's memory."""
_HERE = Path(__file__).parents[1]


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


def run_pinned(
    command: Sequence[str],
    cores: str,
    log: Path,
    *,
    checkout: Path = _HERE,
    timeout: float | None = None,
) -> Any:
    """Run a command on some cores, and return its JSON; a search without a value has one too.

    Args:
        command: the module and its flags, in which paths are absolute.
        cores: numbers of cores, such as `0,1`.
        log: file to which its standard error is appended.
        checkout: the checkout whose code runs.
        timeout: seconds after which it is ended.

    Raises:
        RuntimeError: if it prints no JSON, or does not end in time.
    """
    # Ray lowers the priority of its workers, which matters if other programs use the machine.
    environment = {**os.environ, "RAY_worker_niceness": "0", "PYTHONPATH": str(checkout)}
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as errors:
        try:
            done = subprocess.run(
                ["taskset", "-c", cores, sys.executable, "-m", *command, "--json"],
                stdout=subprocess.PIPE,
                stderr=errors,
                check=False,
                text=True,
                env=environment,
                cwd=checkout,
                timeout=timeout,
            )
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"did not end in time; see {log}") from None
    if not done.stdout.startswith("{"):
        raise RuntimeError(f"ended with exit code {done.returncode}; see {log}")
    return json.loads(done.stdout)


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
