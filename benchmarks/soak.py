"""A long search whose driver and workers are killed at random, and that a loop starts again and again until it is done.

    python -m benchmarks.soak --trials 500 --seed 0 [--side ray]

`recsys` is the command with `--resume-auto`; `ray` is Ray Tune alone (`soak_ray`), with the same trials, killed by the same rule.
Each is checked in MLflow, and against what had ended before each kill. The figures stand in docs/reliability.md.
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
"""When a driver is killed that is killed while it starts, one in four."""
LIFE_SECONDS = (3.0, 20.0)
"""When one of the others is killed, since its first worker was seen at work."""
WORKER_SECONDS = (3.0, 9.0)
"""Between two kills of workers."""
EPOCHS = 9
_WORKERS = ("ray::ResourceTr", "ray::ImplicitFu", "ray::TrialRunn")
"""How the processes that train are named; others of Ray's take the whole node with them."""
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
    """A search to be killed. `ended` reads what has ended so far, by trial."""

    command: Callable[[Path, int], list[str]]
    ended: Callable[[Path], Ended]


@dataclass
class Soak:
    """What a soak came to; megabytes are of a million bytes."""

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
    """The command, the same each time."""
    places = [
        "--name",
        "soak",
        "--space",
        str(folder / "space.yaml"),
        "--data",
        str(folder / "tiny.csv"),
        "--dir",
        str(folder),
    ]
    settings = [part for path, value in SETTINGS.items() for part in ("--set", f"{path}={value}")]
    return [
        sys.executable,
        "-m",
        "recsys.tune",
        *places,
        "--trials",
        str(trials),
        "--resume-auto",
        *settings,
    ]


def ray_command(folder: Path, trials: int) -> list[str]:
    """Ray Tune alone, which starts or restores."""
    return [sys.executable, "-m", "benchmarks.soak_ray", str(folder), str(trials)]


SIDES = {"recsys": Side(recsys_command, ended_of_recsys), "ray": Side(ray_command, ended_of_ray)}


def soak(name: str, folder: Path, trials: int, seed: int) -> Soak:
    """Start, kill and start again until the search ends well; give up after ten ends by an error, or an hour."""
    side, result, draw = SIDES[name], Soak(name, trials, seed), random.Random(seed)
    (folder / "space.yaml").write_text(SPACE)
    (folder / "tiny.csv").write_text(tiny_ratings())
    # MLflow's database is made beforehand: when that is cut off, MLflow never opens it again.
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
            code = _live(process, folder, result, draw)
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


def _live(process: subprocess.Popen[bytes], folder: Path, result: Soak, draw: random.Random) -> int:
    """Kill workers now and then, and the driver in the end; its exit code."""
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
        return False  # it has ended since it was listed
    return True


def _disk(folder: Path) -> float:
    total = 0
    for place, _, files in os.walk(folder):
        for file in files:
            try:
                total += Path(place, file).stat().st_size
            except FileNotFoundError:
                continue  # it is gone since it was listed
    return total / 1e6


def tiny_ratings() -> str:
    """60 users with 15 of 80 items each, as CSV."""
    draw = random.Random(0)
    rows = [
        f"{user},{item},{time}"
        for user in range(60)
        for time, item in enumerate(draw.sample(range(80), 15))
    ]
    return "\n".join(["user_id,item_id,timestamp", *rows]) + "\n"


def main() -> int:
    """Print the figures as JSON; returns the exit code, 1 if trials are missing, lost or doubled."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--side", choices=SIDES, default="recsys")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-", ignore_cleanup_errors=True) as folder:
        result = soak(given.side, Path(folder), given.trials, given.seed)
    sys.stdout.write(json.dumps(asdict(result), indent=2) + "\n")
    wrong = sum(count for name, count in result.found.items() if name != "trials ended")
    return int(wrong > 0 or result.found["trials ended"] != given.trials)


if __name__ == "__main__":
    sys.exit(main())
