"""Whether the parts of the search earn their place, and the variants on equal terms, on data of the user's own.

Each search has one core and the same budget, and two run side by side. One that has its result in the folder is not run again.
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
"""Searches by what stands in them: the module that runs, and what is set."""
VARIANTS = ("inner_product", "gmf", "mlp", "neumf")


@dataclass(frozen=True)
class Search:
    """One search of the comparison; `trains`: its best trial is trained on everything afterwards and read on test."""

    system: str
    space: Path
    seed: int
    minutes: float
    module: str = "recsys.tune"
    settings: tuple[str, ...] = ()
    trains: bool = False

    @property
    def name(self) -> str:
        """What the study is called."""
        return study_name(self.system, self.seed)


def study_name(system: str, seed: int) -> str:
    """What the search of a system with a seed is called."""
    return f"{system}-{seed}".replace(", ", "-").replace(" ", "-")


def searches(minutes: float, variant_minutes: float) -> list[Search]:
    """All searches, a seed of every system before the next seed."""
    found = [
        Search(system, SPACES / "ncf.yaml", seed, minutes, module, tuple(settings))
        for seed in SEEDS
        for system, (module, settings) in SYSTEMS.items()
    ]
    return found + [
        Search(name, SPACES / f"{name}.yaml", 0, variant_minutes, trains=True) for name in VARIANTS
    ]


def run(search: Search, folder: Path, data: Path, core: int) -> None:
    """Run a search on one core and keep what it told, and its final training, as JSON beside its log."""
    told, work = folder / f"{search.name}.json", folder / "work" / search.name
    if told.exists():
        return
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(
        folder / "prepared", work
    )  # a folder each, as they are apart; the data are prepared once
    flags = ["--data", str(data), "--dir", str(work), "--json"]
    settings = [f"study.seed={search.seed}", *search.settings]
    sets = [part for setting in settings for part in ("--set", setting)]
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
    told.write_text(json.dumps(answer), encoding="utf-8")


def _command(core: int, log: Path, module: str, *flags: str) -> Any:
    # Ray lowers the priority of its workers, which matters where something else has the machine too.
    environment = {**os.environ, "RAY_worker_niceness": "0"}
    with log.open("a") as errors:
        command = ["taskset", "-c", str(core), sys.executable, "-m", module, *flags]
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=errors, check=True, text=True, env=environment
        )
    return json.loads(done.stdout)


def main() -> None:
    """Run what has no result yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--dir", type=Path, required=True, dest="folder")
    parser.add_argument(
        "--minutes",
        type=float,
        default=10,
        help="budget of the searches that are compared part by part",
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
    free: SimpleQueue[int] = SimpleQueue()
    for core in CORES:
        free.put(core)

    def run_on_a_free_core(search: Search) -> None:
        core = free.get()
        try:
            run(search, folder, options.data, core)
        finally:
            free.put(core)

    with ThreadPoolExecutor(len(CORES)) as pool:
        list(pool.map(run_on_a_free_core, searches(options.minutes, options.variant_minutes)))


if __name__ == "__main__":
    main()
