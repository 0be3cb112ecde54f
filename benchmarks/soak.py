"""A long search whose driver and workers are killed at random, restarted until it is done.

    python -m benchmarks.soak --trials 500 --seed 0 [--side ray]

The side `recsys` runs the command with `--resume-auto`. The side `ray` runs Ray Tune alone
(`soak_ray`) with the same trials, killed by the same rule. Each is checked in MLflow, and against
the trials that had ended before each kill. docs/reliability.md has the figures.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from mlflow.tracking import MlflowClient

from benchmarks.memory import tree_megabytes
from benchmarks.soak_checks import Ended, check, ended_of_ray, ended_of_recsys

START_SECONDS = (1.0, 8.0)
"""Range of the time from a driver's start to its kill, for one driver in four."""
LIFE_SECONDS = (3.0, 20.0)
"""The same for the other drivers, from the first worker's start."""
WORKER_SECONDS = (3.0, 9.0)
"""Range of the time between two kills of workers."""
EPOCHS = 9
_WORKERS = ("ray::ResourceTr", "ray::ImplicitFu", "ray::TrialRunn")
"""Names of the processes that train; if another process of Ray dies, the whole node ends."""
_POLL_SECONDS = 0.25
_GIVE_UP_ERRORS, _GIVE_UP_SECONDS = 10, 3600.0
SPACE = """
parameters:
  model.embedding_dim: {low: 4, high: 16}
  training.learning_rate: {low: 1e-3, high: 3e-1, log: true}
"""
SETTINGS = {
    "model.name": "inner_product",
    "training.batch_size": 32,
    "training.max_epochs": EPOCHS,
    "study.max_concurrent": 2,
}


@dataclass(frozen=True)
class Side:
    """A search to be killed; `ended` reads the trials that have ended so far."""

    command: Callable[[Path, int], list[str]]
    ended: Callable[[Path], Ended]


@dataclass
class Soak:
    """Figures of a soak; a megabyte is a million bytes."""

    side: str
    trials: int
    seed: int
    starts: int = 0
    driver_kills: int = 0
    worker_kills: int = 0
    ended_by_error: int = 0
    seconds: float = 0.0
    driver_peak_megabytes: float = 0.0
    worker_peak_megabytes: float = 0.0
    disk_peak_megabytes: float = 0.0
    disk_end_megabytes: float = 0.0
    found: dict[str, int] = field(default_factory=dict)


def recsys_command(folder: Path, trials: int) -> list[str]:
    """Return the command, which is the same for each start."""
    paths = [
        "--name",
        "soak",
        "--space",
        str(folder / "space.yaml"),
        "--data",
        str(folder / "tiny.csv"),
        "--dir",
        str(folder),
    ]
    settings = [flag for path, value in SETTINGS.items() for flag in ("--set", f"{path}={value}")]
    return [
        sys.executable,
        "-m",
        "recsys.tune",
        *paths,
        "--trials",
        str(trials),
        "--resume-auto",
        *settings,
    ]


def ray_command(folder: Path, trials: int) -> list[str]:
    """Return the command of Ray Tune alone, which starts or restores the search."""
    return [sys.executable, "-m", "benchmarks.soak_ray", str(folder), str(trials)]


SIDES = {"recsys": Side(recsys_command, ended_of_recsys), "ray": Side(ray_command, ended_of_ray)}


def soak(name: str, folder: Path, trials: int, seed: int) -> Soak:
    """Start, kill and restart the search until it succeeds.

    Give up after ten ends by an error, or after an hour.
    """
    side, result, draw = SIDES[name], Soak(name, trials, seed), random.Random(seed)
    (folder / "space.yaml").write_text(SPACE)
    (folder / "tiny.csv").write_text(tiny_ratings())
    # Create MLflow's database first: MLflow never opens one whose creation was interrupted.
    MlflowClient(f"sqlite:///{folder / 'mlflow.db'}").search_experiments()
    known: list[Ended] = []
    began = time.monotonic()
    with (folder / "log.txt").open("w") as log:
        while (
            result.ended_by_error < _GIVE_UP_ERRORS and time.monotonic() < began + _GIVE_UP_SECONDS
        ):
            result.starts += 1
            process = subprocess.Popen(
                side.command(folder, trials), stdout=log, stderr=log, start_new_session=True
            )
            code = _kill_at_random(process, folder, result, draw)
            known.append(side.ended(folder))
            sys.stderr.write(
                f"start {result.starts}: exit code {code}, {len(known[-1])} trials ended\n"
            )
            if code == 0:
                break
            result.ended_by_error += code != -signal.SIGKILL
    result.seconds = time.monotonic() - began
    result.disk_end_megabytes = _disk(folder)
    result.found = check(name, folder, known)
    return result


def _kill_at_random(
    process: subprocess.Popen[bytes], folder: Path, result: Soak, draw: random.Random
) -> int:
    """Kill workers at random times, then the driver, and return the driver's exit code."""
    early = draw.random() < 0.25
    end = time.monotonic() + draw.uniform(*START_SECONDS) if early else None
    next_worker = time.monotonic() + draw.uniform(*WORKER_SECONDS)
    while (code := process.poll()) is None:
        now, workers = time.monotonic(), list[int]()
        for number, name, peak, _ in tree_megabytes(process.pid):
            if number == process.pid:
                result.driver_peak_megabytes = max(result.driver_peak_megabytes, peak)
            elif name.startswith(_WORKERS):
                workers.append(number)
                result.worker_peak_megabytes = max(result.worker_peak_megabytes, peak)
        if end is None and workers:
            end = now + draw.uniform(*LIFE_SECONDS)
        if now >= next_worker and workers:
            result.worker_kills += _kill(draw.choice(sorted(workers)))
            next_worker = now + draw.uniform(*WORKER_SECONDS)
        if end is not None and now >= end:
            result.driver_kills += _kill(process.pid)
            process.wait()
        result.disk_peak_megabytes = max(result.disk_peak_megabytes, _disk(folder))
        time.sleep(_POLL_SECONDS)
    return code


def _kill(number: int) -> bool:
    try:
        os.kill(number, signal.SIGKILL)
    except ProcessLookupError:
        return False  # it ended after it was listed
    return True


def _disk(folder: Path) -> float:
    total = 0
    for parent, _, files in os.walk(folder):
        for file in files:
            try:
                total += Path(parent, file).stat().st_size
            except FileNotFoundError:
                continue  # it was deleted after it was listed
    return total / 1e6


def tiny_ratings() -> str:
    """Return ratings of 60 users with 15 of 80 items each, as CSV."""
    draw = random.Random(0)
    rows = [
        f"{user},{item},{time}"
        for user in range(60)
        for time, item in enumerate(draw.sample(range(80), 15))
    ]
    return "\n".join(["user_id,item_id,timestamp", *rows]) + "\n"


def main() -> int:
    """Print the figures as JSON, and return the exit code: 1 if trials are missing or repeated."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--side", choices=SIDES, default="recsys")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-", ignore_cleanup_errors=True) as folder:
        result = soak(options.side, Path(folder), options.trials, options.seed)
    sys.stdout.write(json.dumps(asdict(result), indent=2) + "\n")
    wrong = sum(count for name, count in result.found.items() if name != "trials ended")
    return int(wrong > 0 or result.found["trials ended"] != options.trials)


if __name__ == "__main__":
    sys.exit(main())
