"""Searches whose folder is in a local S3, each as on a machine of its own: nothing but S3 is left of one for the next."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import gettempdir
from typing import Any

from optuna.trial import FrozenTrial

from recsys.object_store import fetch, open_folder
from recsys.search.study_storage import JOURNAL, load_study

GIVE_UP_SECONDS = 500.0


@dataclass
class Head:
    """A running command with a temporary folder of its own, and where it writes its standard error."""

    process: subprocess.Popen[str]
    errors: Path

    def end(self) -> tuple[int, dict[str, Any], str]:
        """Wait for its end: the exit code, the JSON answer (empty if there is none), and what it wrote on standard error."""
        out, _ = self.process.communicate(timeout=GIVE_UP_SECONDS)
        return self.process.returncode, json.loads(out) if out.strip() else {}, self.errors.read_text(encoding="utf-8")

    def wait_until(self, reached: Callable[[], bool]) -> None:
        """Look again and again until it has come so far."""
        deadline = time.monotonic() + GIVE_UP_SECONDS
        while not reached():
            assert self.process.poll() is None, self.errors.read_text(encoding="utf-8")
            assert time.monotonic() < deadline
            time.sleep(0.1)


@contextmanager
def started(command: str, folder: Path, environment: Mapping[str, str], *flags: object) -> Iterator[Head]:
    """Start a command whose temporary files go to `folder`; it is killed in the end with all that it has started."""
    folder.mkdir()
    with (folder / "errors").open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", f"recsys.{command}", "--json", *map(str, flags)],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, **environment, "TMPDIR": str(folder), "RAY_TMPDIR": gettempdir()},
            start_new_session=True,
        )
    try:
        yield Head(process, folder / "errors")
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.wait()


def stored_trials(place: str, name: str) -> list[FrozenTrial]:
    """The trials of a study as S3 has them now, none before there is a study."""
    study = open_folder(place) / "studies" / name
    fetch(study / JOURNAL)
    return load_study(study).trials if (study / JOURNAL).exists() else []
