"""Print the tables of a comparison as Markdown, and write its curves as SVG, for docs/quality.md.

A comparison that is not complete can be reported too: each row says how many searches it has.
"""

import argparse
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks.report import table
from benchmarks.search_quality.curves import plot_regrets, plot_values
from benchmarks.search_quality.files import Comparison
from benchmarks.search_quality.outcome import Outcome
from benchmarks.search_quality.regret import (
    Regrets,
    Scale,
    common_pairs,
    mean_interval,
    ratio_interval,
    regrets_of,
    scales_of,
)
from benchmarks.search_quality.searches import EARLIER, SYSTEMS, WHOLE
from benchmarks.search_quality.targets import beats_starts, halves_regret, starts_soon


def report(comparison: Comparison, plots: Path) -> Iterator[str]:
    """Yield the tables, and write the curves into the folder `plots`."""
    outcomes = list(comparison.outcomes())
    scales = scales_of(outcomes, comparison.popular())
    by_budget = {
        minutes: {
            system: regrets
            for system in SYSTEMS
            if (regrets := regrets_of(_of(outcomes, system, minutes), scales))
        }
        for minutes in sorted({outcome.search.minutes for outcome in outcomes})
    }
    for minutes, by_system in by_budget.items():
        yield f"### Budget of {minutes:g} min\n"
        yield regret_table(by_system)
        yield value_table([o for o in outcomes if o.search.minutes == minutes], scales)
        plot_values(outcomes, minutes, plots / f"search-{minutes:g}m.svg")
    plot_regrets(outcomes, scales, plots / "search-regret.svg")
    yield "### Targets\n"
    yield from target_lines(outcomes, by_budget)
    yield "### Measured\n"
    yield from source_lines(comparison, outcomes)


def _of(outcomes: Sequence[Outcome], system: str, minutes: float) -> list[Outcome]:
    return [o for o in outcomes if o.search.system == system and o.search.minutes == minutes]


def regret_table(by_system: Mapping[str, Regrets]) -> str:
    """Return the mean regrets of the systems, and their ratios to the whole's."""
    rows = []
    for system, regrets in by_system.items():
        n_searches = sum(len(seeds) for seeds in regrets.values())
        ratio = ""
        if system != WHOLE and WHOLE in by_system and common_pairs(regrets, by_system[WHOLE])[0]:
            ratio = str(ratio_interval(regrets, by_system[WHOLE]))
        rows.append([system, str(n_searches), str(mean_interval(regrets)), ratio])
    return table(["search", "searches", "mean regret", "times the whole's"], rows)


def value_table(outcomes: Sequence[Outcome], scales: Mapping[str, Scale]) -> str:
    """Return the median value of each system's answers on each data set."""
    systems = [name for name in SYSTEMS if any(o.search.system == name for o in outcomes)]
    rows = []
    for data in sorted({outcome.search.data for outcome in outcomes}):
        cells = []
        for system in systems:
            values = [
                scales[data].popular if outcome.value is None else outcome.value
                for outcome in outcomes
                if (outcome.search.data, outcome.search.system) == (data, system)
            ]
            cells.append(f"{statistics.median(values):.4f}" if values else "")
        rows.append([data, f"{scales[data].popular:.4f}", *cells, f"{scales[data].best:.4f}"])
    return table(["data", "most popular", *systems, "best of all"], rows)


def target_lines(
    outcomes: Sequence[Outcome], by_budget: Mapping[float, Mapping[str, Regrets]]
) -> Iterator[str]:
    """Yield a line for each target of the whole search."""
    whole = [outcome for outcome in outcomes if outcome.search.system == WHOLE]
    if not whole:
        return
    regrets = [
        {minutes: found[system] for minutes, found in by_budget.items() if system in found}
        for system in (WHOLE, EARLIER)
    ]
    for target in (beats_starts(whole), *halves_regret(*regrets), *starts_soon(whole)):
        yield f"- {'holds' if target.holds else '**missed**'}: {target}"
    yield ""


def source_lines(comparison: Comparison, outcomes: Sequence[Outcome]) -> Iterator[str]:
    """Yield the commits that searched, and the check of the values that were trained again."""
    for system in SYSTEMS:
        commits = {o.searched.commit for o in outcomes if o.search.system == system}
        if commits:
            yield f"- {system}: {', '.join(sorted(commits))}"
    difference = comparison.largest_difference()
    yield f"- values trained again differ from the recorded ones by at most {difference:.1g}"


def main() -> None:
    """Print the tables and write the curves."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.search_quality.report", description=__doc__
    )
    parser.add_argument("--plots", type=Path, required=True, help="folder of the SVG files")
    options = parser.parse_args()
    for text in report(Comparison(), options.plots):
        sys.stdout.write(f"{text}\n")


if __name__ == "__main__":
    main()
