"""What all benchmarks share: repeats in turn, median with minimum and maximum, targets, and the printed result.

A benchmark measures its subject and the limit beside it in turns, so that what disturbs the machine meets both, and compares them
turn by turn.
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
    """What a quantity must reach: at least or at most `bound`, by its median."""

    name: str
    value: Spread
    bound: float
    at_least: bool = True

    @property
    def holds(self) -> bool:
        """Whether the median reaches the bound."""
        return self.value.median >= self.bound if self.at_least else self.value.median <= self.bound

    def __str__(self) -> str:
        return f"{self.name} {self.value}, must be {'>=' if self.at_least else '<='} {figure(self.bound)}"


@dataclass(frozen=True)
class Row:
    """A measured case: quantities by name, the unit in the name, and the targets that they have to reach.

    `at`: where the case stands among those of its subject, such as its size, for plots and for how the cost grows.
    """

    case: str
    values: Mapping[str, Spread]
    targets: Sequence[Target] = field(default=())
    at: Mapping[str, str | float] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """What a subject came to; `error` tells why there are no rows."""

    subject: str
    seconds: float
    rows: Sequence[Row]
    error: str | None = None


def figure(value: float) -> str:
    """Three significant digits, all digits before the point."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def spread(values: Sequence[float]) -> Spread:
    """Median, minimum and maximum."""
    return Spread(statistics.median(values), min(values), max(values))


def ratios(numerators: Sequence[float], denominators: Sequence[float]) -> Spread:
    """The ratio of two quantities, turn by turn."""
    return spread([a / b for a, b in zip(numerators, denominators, strict=True)])


def in_turns(
    measurements: Mapping[str, Callable[[], float]], repeats: int
) -> dict[str, list[float]]:
    """Call all, again and again, after one call each that does not count: name -> what each of its calls returned."""
    results: dict[str, list[float]] = {name: [] for name in measurements}
    for repeat in range(repeats + 1):
        for name, measure in measurements.items():
            value = measure()
            if repeat:
                results[name].append(value)
    return results


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def rate(work: Callable[[], object], amount: float) -> Callable[[], float]:
    """A measurement: `amount` a second of calling `work` once."""
    return lambda: amount / seconds(work)


def run(subject: str, measure: Callable[[], Iterable[Row]]) -> None:
    """Measure and print each row as soon as it is there; with --json one object at the end, the rows on standard error."""
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
    """What a subject told by --json."""
    told = json.loads(text)
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
        for row in told["rows"]
    ]
    return Result(told["subject"], told["seconds"], rows)


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
