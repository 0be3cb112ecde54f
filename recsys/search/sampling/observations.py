"""What the trials of a record have reached, as far as they can be compared.

A trial that was pruned or still runs has trained a share of its epochs. It counts with the value
that it would reach if it gained as much as the complete trials did after that share. Where
trials rank a sample of the users, a complete trial counts with its value on all users. The other
values are moved by the median difference between all users and the sample.
"""

import functools
import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from recsys.search.record.study_record import StudyRecord
from recsys.search.record.summaries import TrialSummary
from recsys.search.sampling.vectors import Point


@dataclass(frozen=True)
class Observations:
    """Points of the space with what is known of them.

    `values`: the expected best values of trials that have reported, by trial number. `diverged` and
    `silent`: trials that diverged, and those that run and have not reported.
    """

    points: Mapping[int, Point]
    values: Mapping[int, float]
    diverged: tuple[int, ...]
    silent: tuple[int, ...]


@dataclass(frozen=True)
class _Curve:
    """Values of a trial by the share of its epochs."""

    values: Mapping[float, float]
    is_complete: bool

    @property
    def best(self) -> float:
        """The best value."""
        return max(self.values.values())

    def best_until(self, share: float) -> float | None:
        """Return the best value until a share of the epochs, None if there is none."""
        return max((v for at, v in self.values.items() if at <= share), default=None)


def observe(record: StudyRecord, *, without: int) -> Observations:
    """Return what is known of all trials but one, which is being started.

    Failed trials are left out, since they say nothing about their config.
    """
    summaries = [s for s in record.summaries() if s.number != without and s.state != "failed"]
    diverged = tuple(s.number for s in summaries if s.state == "diverged")
    curves = {s.number: _curve_of(record, s) for s in summaries if s.number not in diverged}
    complete = [curve for curve in curves.values() if curve.is_complete]
    on_all_users = {s.number: s.on_all_users.value for s in summaries if s.on_all_users is not None}
    difference = _median([value - curves[n].best for n, value in on_all_users.items()])

    @functools.cache  # trials are pruned at a few shares
    def gain_from(share: float) -> float:
        return _median_gain(complete, share)

    expected = {
        number: curve.best + (0.0 if curve.is_complete else gain_from(max(curve.values)))
        for number, curve in curves.items()
        if curve.values
    }
    return Observations(
        {s.number: s.params for s in summaries},
        {
            number: on_all_users.get(number, value + difference)
            for number, value in expected.items()
        },
        diverged,
        tuple(n for n, curve in curves.items() if not curve.values and record.is_running(n)),
    )


def _curve_of(record: StudyRecord, summary: TrialSummary) -> _Curve:
    values = record.values_of(summary.number)
    n_epochs = summary.params.get("training.max_epochs", record.base.training.max_epochs)
    n_steps = n_epochs * record.n_segments
    return _Curve(
        {step / n_steps: value for step, value in values.items()}, summary.state == "complete"
    )


def _median_gain(complete: list[_Curve], share: float) -> float:
    """Return the median of what complete trials gained from a share of their epochs on."""
    gains = [
        curve.best - reached
        for curve in complete
        if (reached := curve.best_until(share)) is not None
    ]
    return _median(gains)


def _median(values: list[float]) -> float:
    """Return the median, 0 of no values."""
    return statistics.median(values) if values else 0.0
