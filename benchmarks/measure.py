"""Measurement that all benchmarks share: turns, medians with minimum and maximum, targets, output.

A benchmark measures its subject and the limit beside it in turns, so that disturbances of the
machine affect both, and compares them turn by turn.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TextIO


@dataclass(frozen=True)
class Spread:
    """Repeated measurements of one quantity."""

    median: float
    minimum: float
    maximum: float

    def __str__(self) -> str:
        if self.minimum == self.maximum:
            return figure(self.median)
        return f"{figure(self.median)} ({figure(self.minimum)} to {figure(self.maximum)})"


@dataclass(frozen=True)
class Target:
    """Bound that a quantity's median must reach: at least or at most `bound`."""

    name: str
    value: Spread
    bound: float
    at_least: bool = True

    @property
    def holds(self) -> bool:
        """Return True if the median reaches the bound."""
        return self.value.median >= self.bound if self.at_least else self.value.median <= self.bound

    def __str__(self) -> str:
        sign = ">=" if self.at_least else "<="
        return f"{self.name} {self.value}, must be {sign} {figure(self.bound)}"


@dataclass(frozen=True)
class Row:
    """A measured case: quantities by name, which has the unit, and the targets to reach.

    `at`: coordinates of the case within its subject, such as its size, for plots and for the table
    of the cost by size.
    """

    case: str
    values: Mapping[str, Spread]
    targets: Sequence[Target] = field(default=())
    at: Mapping[str, str | float] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """Rows of a subject; `error` is the reason if it has none."""

    subject: str
    seconds: float
    rows: Sequence[Row]
    error: str | None = None


def figure(value: float) -> str:
    """Format a value with three significant digits, and with all digits before the point."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def spread(values: Sequence[float]) -> Spread:
    """Return the median, minimum and maximum."""
    return Spread(statistics.median(values), min(values), max(values))


def ratios(numerators: Sequence[float], denominators: Sequence[float]) -> Spread:
    """Return the ratio of two quantities, computed turn by turn."""
    return spread([a / b for a, b in zip(numerators, denominators, strict=True)])


def in_turns(
    measurements: Mapping[str, Callable[[], float]], repeats: int
) -> dict[str, list[float]]:
    """Call all measurements in turns, `repeats` times after a first turn that does not count.

    Returns:
        The results of each measurement, by its name.
    """
    results: dict[str, list[float]] = {name: [] for name in measurements}
    for repeat in range(repeats + 1):
        for name, measure in measurements.items():
            value = measure()
            if repeat:
                results[name].append(value)
    return results


def seconds(work: Callable[[], object]) -> float:
    """Return the wall time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def rate(work: Callable[[], object], amount: float) -> Callable[[], float]:
    """Return a measurement that calls `work` once and gives `amount` per second."""
    return lambda: amount / seconds(work)


def run(subject: str, measure: Callable[[], Iterable[Row]]) -> None:
    """Print each row as soon as it is measured.

    With --json, print the rows on standard error, and one JSON object on standard output at the
    end.
    """
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{subject}")
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object on standard output"
    )
    as_json = parser.parse_args().json
    rows = []
    start = time.perf_counter()
    for row in measure():
        rows.append(row)
        _print(row, sys.stderr if as_json else sys.stdout)
    result = Result(subject, time.perf_counter() - start, rows)
    if as_json:
        sys.stdout.write(json.dumps(_describe(result)) + "\n")
    else:
        sys.stdout.write(f"{subject}: {result.seconds:.0f} s, median (minimum to maximum)\n")


def read_result(text: str) -> Result:
    """Return the result that a subject printed with --json."""
    output = json.loads(text)
    rows = [
        Row(
            case=row["case"],
            values={name: Spread(**value) for name, value in row["values"].items()},
            targets=[
                Target(each["name"], Spread(**each["value"]), each["bound"], each["at_least"])
                for each in row["targets"]
            ],
            at=row["at"],
        )
        for row in output["rows"]
    ]
    return Result(output["subject"], output["seconds"], rows)


def _describe(result: Result) -> dict[str, Any]:
    rows = [
        {
            "case": row.case,
            "at": dict(row.at),
            "values": {name: asdict(value) for name, value in row.values.items()},
            "targets": [asdict(target) | {"holds": target.holds} for target in row.targets],
        }
        for row in result.rows
    ]
    return {"subject": result.subject, "seconds": result.seconds, "rows": rows}


def _print(row: Row, file: TextIO) -> None:
    values = ", ".join(f"{name} {value}" for name, value in row.values.items())
    file.write(f"{row.case}: {values}\n")
    file.writelines(
        f"  {'holds ' if target.holds else 'MISSED'} {target}\n" for target in row.targets
    )
    file.flush()
