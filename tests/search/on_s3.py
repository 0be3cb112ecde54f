"""Searches whose folder is in a local S3, each as on its own machine: they share S3 alone."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import gettempdir

from optuna.trial import FrozenTrial

from recsys.search.record.optuna_storage import JOURNAL
from recsys.search.record.study_folder import StudyFolder
from recsys.storage.s3 import fetch, open_folder
from tests.faults.search_process import SearchProcess


@contextmanager
def started(
    command: str, folder: Path, environment: Mapping[str, str], *flags: object
) -> Iterator[SearchProcess]:
    """Run a command with temporary files in `folder`; kill it and its children at the end."""
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
        yield SearchProcess(process, folder / "errors")
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.wait()


def stored_trials(place: str, name: str) -> list[FrozenTrial]:
    """Return the trials of a study as S3 has them now, none before the study exists."""
    study = open_folder(place) / "studies" / name
    fetch(study / JOURNAL)
    return StudyFolder(study).optuna_study().trials if (study / JOURNAL).exists() else []
