"""Comparison of the variants on the user's data: a search of each one's own space, and its test.

Each search has one core and the same budget, and two run side by side. A search whose result is in
the folder is not run again.
"""

import argparse
import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

from benchmarks.commands import run_pinned

SPACES = Path(__file__).parents[1] / "search_spaces"
CORES = ("0", "1")
STUDY = "s"
VARIANTS = ("inner_product", "gmf", "mlp", "neumf")


def run(variant: str, minutes: float, folder: Path, data: Path, core: str) -> None:
    """Search a variant's space on one core, train the best trial, and store both outputs."""
    result, work = folder / f"{variant}.json", folder / "work" / variant
    if result.exists():
        return
    shutil.rmtree(work, ignore_errors=True)
    # The data are prepared once, and each search gets a copy in a folder of its own.
    shutil.copytree(folder / "prepared", work)
    flags = ["--data", str(data), "--dir", str(work)]
    tune = ["recsys.tune", "--space", str(SPACES / f"{variant}.yaml"), "--name", STUDY]
    budget = ["--concurrent", "1", "--time-budget", f"{minutes * 60:.0f}s"]
    train = ["recsys.train", "--best-of", STUDY]
    log = folder / f"{variant}.log"
    answer = {
        "tune": run_pinned([*tune, *budget, *flags], core, log),
        "train": run_pinned([*train, *flags], core, log),
    }
    result.write_text(json.dumps(answer), encoding="utf-8")


def main() -> None:
    """Run the searches that have no result yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--dir", type=Path, required=True, dest="folder")
    parser.add_argument("--minutes", type=float, default=15, help="budget of each search")
    options = parser.parse_args()
    folder: Path = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    data: Path = options.data.resolve()
    flags = ["--data", str(data), "--dir", str(folder / "prepared")]
    subprocess.run([sys.executable, "-m", "recsys.preprocess", *flags], check=True)
    idle: SimpleQueue[str] = SimpleQueue()
    for core in CORES:
        idle.put(core)

    def run_on_an_idle_core(variant: str) -> None:
        core = idle.get()
        try:
            run(variant, options.minutes, folder, data, core)
        finally:
            idle.put(core)

    with ThreadPoolExecutor(len(CORES)) as pool:
        list(pool.map(run_on_an_idle_core, VARIANTS))


if __name__ == "__main__":
    main()
