"""Running the project's commands from benchmarks, as a user would."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


def tune(folder: Path, space: Path, *flags: str) -> tuple[dict[str, Any], float]:
    """The JSON answer of a search, and the peak memory in MB of its process."""
    return _run("recsys.tune", "--space", str(space), "--dir", str(folder), *flags)


def preprocess(folder: Path, *flags: str) -> None:
    """Prepare data in `folder`."""
    _run("recsys.preprocess", "--dir", str(folder), *flags)


def _run(module: str, *flags: str) -> tuple[dict[str, Any], float]:
    command = [sys.executable, "-m", module, *flags, "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        output = process.stdout.read()
        # Of this process alone, where the sum over all children would have Ray's workers in it.
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with exit code {process.returncode}.")
    return json.loads(output), usage.ru_maxrss / 1024
