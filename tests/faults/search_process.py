"""A search as a user starts it, in a process group of its own that can be killed for real."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna

from tests.small_search import logged_steps, logged_trials, open_optuna

ROOT = Path(__file__).parents[2]
GIVE_UP_SECONDS = 240.0


@dataclass
class SearchProcess:
    """A running `python -m recsys.tune` and the file that its standard error goes to."""

    process: subprocess.Popen[str]
    errors: Path

    def end(self) -> tuple[int, dict[str, Any], str]:
        """Wait for the end; return exit code, JSON answer ({} if none) and standard error."""
        out, _ = self.process.communicate(timeout=GIVE_UP_SECONDS)
        return (
            self.process.returncode,
            json.loads(out) if out.strip() else {},
            self.errors.read_text(encoding="utf-8"),
        )

    def wait_until(self, reached: Callable[[], bool]) -> None:
        """Poll until the search has reached a state."""
        deadline = time.monotonic() + GIVE_UP_SECONDS
        while not reached():
            assert self.process.poll() is None, self.errors.read_text(encoding="utf-8")
            assert time.monotonic() < deadline
            time.sleep(0.05)


@contextmanager
def started(
    folder: Path,
    *flags: object,
    cluster: str | None = None,
    errors_in: Path | None = None,
    killed_at: str | None = None,
) -> Iterator[SearchProcess]:
    """Start a search of the study `s` in `folder`, and kill it at the end if it still runs.

    Args:
        folder: the results' folder.
        flags: of `python -m recsys.tune`.
        cluster: the address of a cluster to join; by default the search starts Ray.
        errors_in: the folder of a file with the standard error, by default `folder`.
        killed_at: a point for `tests.faults.killed_at`.
    """
    errors = (errors_in or folder) / f"errors-{time.monotonic_ns()}.txt"
    program = ["recsys.tune"] if killed_at is None else ["tests.faults.killed_at", killed_at]
    command = [
        sys.executable,
        "-m",
        *program,
        "--dir",
        str(folder),
        "--name",
        "s",
        "--json",
        *map(str, flags),
    ]
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI")
    }
    if cluster is not None:
        environment["RAY_ADDRESS"] = cluster
    with errors.open("w") as stream:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=stream,
            text=True,
            env=environment,
            start_new_session=True,
        )
    try:
        yield SearchProcess(process, errors)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.wait()


def resume_as_printed(errors: str, cluster: str) -> None:
    """Run the command that a search printed last, on a cluster; it must succeed."""
    command = shlex.split(errors.splitlines()[-1].partition("resume it with: python ")[2])
    done = subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "RAY_ADDRESS": cluster},
    )
    assert done.returncode == 0, done.stderr


def read_trials(folder: Path) -> list[optuna.trial.FrozenTrial]:
    """Return the trials of the study `s`, read by optuna alone; none before the study exists."""
    study = folder / "studies" / "s"
    return open_optuna(study).trials if study.exists() else []


def n_reports(folder: Path) -> int:
    """Return the number of epochs in the record."""
    return sum(len(trial.intermediate_values) for trial in read_trials(folder))


def check_complete(folder: Path, uri: str, n_trials: int) -> None:
    """Check that record and MLflow have every trial and epoch once, none running or failed."""
    trials = read_trials(folder)
    assert [trial.number for trial in trials] == list(range(n_trials))
    assert {trial.state.name for trial in trials} <= {"COMPLETE", "PRUNED"}
    runs = logged_trials(uri, "recsys")
    assert [int(run.data.tags["trial"]) for run in runs] == list(range(n_trials))
    assert {run.info.status for run in runs} == {"FINISHED"}
    for trial, run in zip(trials, runs, strict=True):
        assert sorted(trial.intermediate_values) == list(
            range(1, max(trial.intermediate_values) + 1)
        )
        assert logged_steps(uri, run, "val_ndcg_at_10") == sorted(trial.intermediate_values)
