"""Run the searches that have no result yet, one at a time on two cores, and score them.

The results are files of the repository (`benchmarks/search_quality/results`), so a measurement may
be stopped and started again, there or on another machine, or extended by more data sets, systems,
budgets or seeds. `python -m benchmarks.search_quality.report` prints them.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.search_quality.files import Comparison
from benchmarks.search_quality.outcome import Search
from benchmarks.search_quality.scores import popular_value, prepare, score
from benchmarks.search_quality.searches import SYSTEMS, run, searches, set_folder
from benchmarks.shapes import SHAPES


def main() -> int:
    """Run and score the searches, and return the exit code: 1 if one failed."""
    options = _options()
    comparison = Comparison()
    wanted = list(searches(options.sets, options.systems, options.minutes, options.seeds))
    missing = [search for search in wanted if not comparison.is_scored(search.name)]
    hours = sum(s.minutes for s in missing if comparison.search(s.name) is None) / 60
    _say(f"{len(missing)} of {len(wanted)} searches to run and score; their budgets: {hours:.1f} h")
    for name in dict.fromkeys(search.data for search in missing):
        folder = set_folder(options.folder, name)
        config = prepare(name, options.public, folder)
        if name not in comparison.popular():
            comparison.store_popular(name, popular_value(config, folder))
    failed = []
    for number, search in enumerate(missing, start=1):
        began = time.monotonic()
        try:
            text = _complete(search, comparison, options)
        except RuntimeError as error:
            failed.append(search.name)
            text = f"FAILED: {error}"
        seconds = time.monotonic() - began
        _say(f"{number} of {len(missing)}, {search.name}, {seconds:.0f} s: {text}")
    if failed:
        _say(f"{len(failed)} failed, and run again with the next start: {', '.join(failed)}")
    return int(bool(failed))


def _complete(search: Search, comparison: Comparison, options: argparse.Namespace) -> str:
    """Run a search unless it has been run, score it, and return what it found."""
    found = comparison.search(search.name)
    if found is None:
        found = run(search, options.folder, options.earlier)
        comparison.store_search(search.name, found)
    began = time.monotonic()
    record = found.record
    scored = score(record, set_folder(options.folder, search.data))
    comparison.store_scores(search.name, scored)
    if record.best is None:
        return f"{record.n_trials} trials, no value"
    again = "" if record.ranks_all else f", scored in {time.monotonic() - began:.0f} s"
    return f"{record.n_trials} trials, best {scored.scores[record.best]:.4f}{again}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.search_quality", description=__doc__
    )
    parser.add_argument("--dir", type=Path, required=True, dest="folder", help="folder to work in")
    parser.add_argument("--public", type=Path, required=True, help="folder of public data")
    parser.add_argument("--earlier", type=Path, help="checkout to compare with")
    parser.add_argument("--sets", nargs="+", choices=SHAPES, default=list(SHAPES), metavar="SET")
    parser.add_argument(
        "--systems",
        nargs="+",
        choices=SYSTEMS,
        default=list(SYSTEMS),
        metavar="SYSTEM",
        help=f"some of: {', '.join(SYSTEMS)}",
    )
    parser.add_argument(
        "--minutes", nargs="+", type=float, default=[2, 5, 15], help="budgets of the searches"
    )
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="number of seeds")
    options = parser.parse_args()
    options.folder = options.folder.resolve()
    if options.earlier is None:
        _require_none_earlier(parser, options.systems)
    else:
        options.earlier = options.earlier.resolve()
    return options


def _require_none_earlier(parser: argparse.ArgumentParser, names: Sequence[str]) -> None:
    needing = [name for name in names if SYSTEMS[name].needs_earlier]
    if needing:
        parser.error(f"--earlier must be given for: {', '.join(needing)}")


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
