"""Comparison of the search with and without its components, and of the models, on the user's data.

Each search has one core and the same budget, and two run side by side. A search whose result is in
the folder is not run again.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

SPACES = Path(__file__).parents[1] / "search_spaces"
CORES = (0, 1)
SEEDS = (0, 1, 2)
NO_RUNGS = "study.grace_period=1000"
SYSTEMS = {
    "whole": ("recsys.tune", []),
    "random with ASHA": ("recsys.tune", ["study.sampler=random"]),
    "TPE without ASHA": ("recsys.tune", [NO_RUNGS]),
    "OptunaSearch with ASHA": ("benchmarks.optuna_search", []),
}
"""Module and settings of each kind of search."""
VARIANTS = ("inner_product", "gmf", "mlp", "neumf")


@dataclass(frozen=True)
class Search:
    """One search of the comparison.

    `trains`: a final training of the best trial follows, which is scored on test.
    """

    system: str
    space: Path
    seed: int
    minutes: float
    module: str = "recsys.tune"
    settings: tuple[str, ...] = ()
    trains: bool = False

    @property
    def name(self) -> str:
        """Name of the study."""
        return study_name(self.system, self.seed)


def study_name(system: str, seed: int) -> str:
    """Return the name of a system's search with a seed."""
    return f"{system}-{seed}".replace(", ", "-").replace(" ", "-")


def searches(minutes: float, variant_minutes: float) -> list[Search]:
    """Return all searches: every system with one seed, then with the next, then the variants."""
    found = [
        Search(system, SPACES / "ncf.yaml", seed, minutes, module, tuple(settings))
        for seed in SEEDS
        for system, (module, settings) in SYSTEMS.items()
    ]
    return found + [
        Search(name, SPACES / f"{name}.yaml", 0, variant_minutes, trains=True) for name in VARIANTS
    ]


def run(search: Search, folder: Path, data: Path, core: int) -> None:
    """Run a search on one core, and store its output and its final training's as JSON."""
    result, work = folder / f"{search.name}.json", folder / "work" / search.name
    if result.exists():
        return
    shutil.rmtree(work, ignore_errors=True)
    # The data are prepared once, and each search gets a copy in a folder of its own.
    shutil.copytree(folder / "prepared", work)
    flags = ["--data", str(data), "--dir", str(work), "--json"]
    settings = [f"study.seed={search.seed}", *search.settings]
    sets = [flag for setting in settings for flag in ("--set", setting)]
    budget = f"{search.minutes * 60:.0f}s"
    tune = [
        "--space",
        str(search.space),
        "--name",
        "s",
        "--concurrent",
        "1",
        "--time-budget",
        budget,
        *sets,
        *flags,
    ]
    answer = {"tune": _command(core, folder / f"{search.name}.log", search.module, *tune)}
    if search.trains:
        answer["train"] = _command(
            core, folder / f"{search.name}.log", "recsys.train", "--best-of", "s", *flags
        )
    result.write_text(json.dumps(answer), encoding="utf-8")


def _command(core: int, log: Path, module: str, *flags: str) -> Any:
    # Ray lowers the priority of its workers, which matters if other programs use the machine.
    environment = {**os.environ, "RAY_worker_niceness": "0"}
    with log.open("a") as errors:
        command = ["taskset", "-c", str(core), sys.executable, "-m", module, *flags]
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=errors, check=True, text=True, env=environment
        )
    return json.loads(done.stdout)


def main() -> None:
    """Run the searches that have no result yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--dir", type=Path, required=True, dest="folder")
    parser.add_argument(
        "--minutes",
        type=float,
        default=10,
        help="budget of each search with or without a component",
    )
    parser.add_argument("--variant-minutes", type=float, default=15, help="budget of a variant")
    options = parser.parse_args()
    folder: Path = options.folder
    folder.mkdir(parents=True, exist_ok=True)
    prepare = [
        sys.executable,
        "-m",
        "recsys.preprocess",
        "--data",
        str(options.data),
        "--dir",
        str(folder / "prepared"),
    ]
    subprocess.run(prepare, check=True)
    idle: SimpleQueue[int] = SimpleQueue()
    for core in CORES:
        idle.put(core)

    def run_on_an_idle_core(search: Search) -> None:
        core = idle.get()
        try:
            run(search, folder, options.data, core)
        finally:
            idle.put(core)

    with ThreadPoolExecutor(len(CORES)) as pool:
        list(pool.map(run_on_an_idle_core, searches(options.minutes, options.variant_minutes)))


if __name__ == "__main__":
    main()
