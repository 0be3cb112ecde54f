"""The systems that are compared, and one run of each.

A search has both cores, as a user's command has on a machine with two: how many trials run at a
time, how soon the first one ends and what fits into the budget are part of what is compared. So one
search runs at a time. It starts from the user's files, and its time counts from the command on.
"""

import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.commands import run_pinned
from benchmarks.search_quality.outcome import Search, Searched
from benchmarks.search_quality.study import read_study
from recsys.config.files import dump_yaml, read_yaml

HERE = Path(__file__).parents[2]
CORES = "0,1"
STUDY = "s"
GRACE_SECONDS = 900
"""Time beyond its budget after which a search is ended as hung."""
WHOLE, EARLIER = "whole", "earlier main"


@dataclass(frozen=True)
class System:
    """One kind of search.

    Attributes:
        settings: config paths with values, as `--set` takes them.
        module: the command.
        is_earlier: the earlier checkout searches, with its own space file.
        has_earlier_starts: the space has the earlier space file's warm starts.
    """

    settings: tuple[str, ...] = ()
    module: str = "recsys.tune"
    is_earlier: bool = False
    has_earlier_starts: bool = False

    @property
    def needs_earlier(self) -> bool:
        """Whether it needs the earlier checkout."""
        return self.is_earlier or self.has_earlier_starts


SYSTEMS = {
    WHOLE: System(),
    EARLIER: System(is_earlier=True),
    "TPE with ASHA": System(("study.sampler=tpe",)),
    "random with ASHA": System(("study.sampler=random",)),
    "OptunaSearch with ASHA": System(module="benchmarks.optuna_search"),
    "without ASHA": System(("study.pruner=none",)),
    "with the earlier starts": System(has_earlier_starts=True),
    "with all users ranked": System(("evaluation.max_users=null", "evaluation.every=1")),
}
"""The whole search, others, and the whole with one part taken away or exchanged."""


def searches(
    data: Sequence[str], systems: Sequence[str], minutes: Sequence[float], n_seeds: int
) -> Iterator[Search]:
    """Yield all searches: all data sets with all systems, then with the next budget, then seed.

    A measurement that is stopped has compared all systems with some of the seeds.
    """
    for seed in range(n_seeds):
        for budget in sorted(minutes):
            for name in data:
                for system in systems:
                    yield Search(name, system, budget, seed)


def set_folder(folder: Path, data: str) -> Path:
    """Return the folder of a data set, in the folder to work in."""
    return folder / "sets" / data


def run(search: Search, folder: Path, earlier: Path | None) -> Searched:
    """Run a search, and return what it did.

    Args:
        search: the search.
        folder: the folder to work in.
        earlier: the earlier checkout, which some systems need.

    Raises:
        RuntimeError: if the command fails, or is hung.
    """
    system, work = SYSTEMS[search.system], folder / "work" / search.name
    checkout = HERE
    if system.is_earlier:
        assert earlier is not None
        checkout = earlier
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    flags = {
        "--space": _space_file(system, work, checkout, earlier),
        "--config": set_folder(folder, search.data) / "config.yaml",
        "--dir": work,
        "--name": STUDY,
        "--concurrent": CORES.count(",") + 1,
        "--time-budget": f"{search.minutes * 60:.0f}s",
    }
    command = [system.module, *(str(word) for pair in flags.items() for word in pair)]
    for setting in (f"study.seed={search.seed}", *system.settings):
        command += ["--set", setting]
    began = time.time()
    answer = run_pinned(
        command,
        CORES,
        folder / "logs" / f"{search.name}.log",
        checkout=checkout,
        timeout=search.minutes * 60 + GRACE_SECONDS,
    )
    seconds = time.time() - began
    record = read_study(work, STUDY, began, answer)
    shutil.rmtree(work)
    return Searched(search, _commit(checkout), seconds, record)


def _space_file(system: System, work: Path, checkout: Path, earlier: Path | None) -> Path:
    space = checkout / "search_spaces" / "ncf.yaml"
    if not system.has_earlier_starts:
        return space
    assert earlier is not None
    starts = read_yaml(earlier / "search_spaces" / "ncf.yaml")["warm_start"]
    exchanged = work / "space.yaml"
    exchanged.write_text(dump_yaml(read_yaml(space) | {"warm_start": starts}), encoding="utf-8")
    return exchanged


def _commit(checkout: Path) -> str:
    describe = ["git", "-C", str(checkout), "describe", "--always", "--dirty"]
    return subprocess.run(describe, stdout=subprocess.PIPE, check=True, text=True).stdout.strip()
