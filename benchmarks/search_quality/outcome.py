"""Searches, what they recorded, and the values of that on all validation users."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, Self


class Report(NamedTuple):
    """A trial's value after an epoch, by the search's own ranking.

    `seconds`: since the start of the command.
    """

    seconds: float
    trial: int
    epoch: int
    value: float


@dataclass(frozen=True)
class Search:
    """One search of the comparison, with its time budget in minutes."""

    data: str
    system: str
    minutes: float
    seed: int

    @property
    def name(self) -> str:
        """Name of its files."""
        return f"{self.data}-{self.system}-{self.minutes:g}m-{self.seed}".replace(" ", "-")


@dataclass(frozen=True)
class Record:
    """Contents of a search's own record.

    Attributes:
        ranks_all: every report ranks all validation users.
        reports: of the trials that may be chosen, in the order of time.
        on_all_users: values on all users that the search computed itself beside those on a sample,
            in the order of time. The epoch is that of the weights.
        starts: trials that run the default config or a warm start.
        first_complete: seconds from the start of the command to the end of the first trial that was
            not stopped; None if all were.
        best: trial and epoch that the command calls the best; None if it has none.
        n_trials: trials that were started.
        trials: seed and config, as JSON, of each trial in `to_score`. The config names the file of
            the data without its folder.
    """

    ranks_all: bool
    reports: Sequence[Report]
    on_all_users: Sequence[Report]
    starts: Sequence[int]
    first_complete: float | None
    best: tuple[int, int] | None
    n_trials: int
    trials: Mapping[int, tuple[int, str]]

    def to_score(self) -> set[tuple[int, int]]:
        """Return the trials and epochs whose values on all users an outcome needs."""
        start = best_of_starts(self)
        found = [*held(self), *([] if start is None else [start])]
        chosen = set() if self.best is None else {self.best}
        return {(report.trial, report.epoch) for report in found} | chosen


@dataclass(frozen=True)
class Searched:
    """A search that has been run.

    `commit`: of the checkout that searched. `seconds`: wall time of the whole command.
    """

    search: Search
    commit: str
    seconds: float
    record: Record

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> Self:
        """Return what `as_json` described."""
        record = tree["record"]
        changed = {
            "reports": [Report(*report) for report in record["reports"]],
            "on_all_users": [Report(*report) for report in record["on_all_users"]],
            "best": record["best"] and tuple(record["best"]),
            "trials": {int(number): tuple(trial) for number, trial in record["trials"].items()},
        }
        search = Search(**tree["search"])
        return cls(search, tree["commit"], tree["seconds"], Record(**record | changed))


Scores = Mapping[tuple[int, int], float]
"""Values on all validation users by trial and epoch."""


@dataclass(frozen=True)
class Outcome:
    """A search by its values on all validation users.

    Attributes:
        searched: the search.
        curve: seconds since the start of the command, and the value of what the search held for
            its best from then on. The last one is the value of its answer. A value may be less
            than the one before where the search ranked a sample of the users.
        best_start: value of the best of the default config and the warm starts, None without one.
    """

    searched: Searched
    curve: Sequence[tuple[float, float]]
    best_start: float | None

    @property
    def search(self) -> Search:
        """Data set, system, budget and seed."""
        return self.searched.search

    @property
    def value(self) -> float | None:
        """Value of the search's answer; None if it has none."""
        return self.curve[-1][1] if self.curve else None

    def value_at(self, seconds: float) -> float | None:
        """Return the value after a time since the start of the command; None before the first."""
        reached = [value for since, value in self.curve if since <= seconds]
        return reached[-1] if reached else None


def incumbents(reports: Sequence[Report]) -> Iterator[Report]:
    """Yield the reports that were better than all before them."""
    best = float("-inf")
    for report in reports:
        if report.value > best:
            best = report.value
            yield report


def held(record: Record) -> Iterator[Report]:
    """Yield what a search held for its best, each time that it changed.

    Once the search has ranked a trial on all users, only such trials count.
    """
    first = min((report.seconds for report in record.on_all_users), default=math.inf)
    yield from incumbents([report for report in record.reports if report.seconds < first])
    yield from incumbents(record.on_all_users)


def best_of_starts(record: Record) -> Report | None:
    """Return the best report of the trials that the search started with, of all users if any is."""
    for reports in (record.on_all_users, record.reports):
        found = [report for report in reports if report.trial in record.starts]
        if found:
            return max(found, key=lambda report: report.value)
    return None


def outcome_of(searched: Searched, scores: Scores) -> Outcome:
    """Return a search by the values of all that `Record.to_score` names."""
    record = searched.record
    curve = [(report.seconds, scores[report.trial, report.epoch]) for report in held(record)]
    if record.best is not None:
        curve.append((searched.seconds, scores[record.best]))
    start = best_of_starts(record)
    return Outcome(searched, curve, None if start is None else scores[start.trial, start.epoch])
