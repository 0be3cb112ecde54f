"""From exact times to one integer a row, which orders as they do.

The first walk over the data keeps a `Span` of each file's times. From all of them `find_clock` learns what the whole column
needs; with this `Clock` the second walk turns times into the integers that are compared from then on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_

import numpy as np

from recsys.data.negatives import IntArray
from recsys.data.readers.times import Times
from recsys.data.sources.files import DataFile
from recsys.errors import InputError

_UNITS = {
    "seconds": (1, 0),
    "milliseconds": (10**3, 0),
    "microseconds": (10**6, 0),
    ".NET ticks": (10**7, 621_355_968_000_000_000),
    "nanoseconds": (10**9, 0),
}
"""Units that numbers are recognised as: how many make a second, and their count at the start of 1970."""

_KNOWN = (315_532_800, 4_102_444_800)
"""Seconds of 1980 and 2100: a unit is recognised where the latest time falls between them. Nanoseconds of 1990 pass for ticks."""

_LIMIT = 1 << 63


@dataclass(frozen=True)
class Span:
    """The times of a file.

    `first`, `last`: the earliest and the latest as (whole, fraction). `digits`: digits of a second that the dates have.
    `needs_integers`: a number has more digits than a float holds.
    """

    file: DataFile
    is_date: bool
    first: tuple[int, float]
    last: tuple[int, float]
    digits: int
    has_fractions: bool
    needs_integers: bool

    def __or__(self, other: "Span") -> "Span":
        """The span of both; the file is the first one's."""
        return Span(
            self.file,
            self.is_date,
            min(self.first, other.first),
            max(self.last, other.last),
            max(self.digits, other.digits),
            self.has_fractions or other.has_fractions,
            self.needs_integers or other.needs_integers,
        )

    @property
    def kind(self) -> str:
        """`dates`, the unit of the numbers, or `numbers` where it is not recognised."""
        low, high = _KNOWN
        units = (
            unit
            for unit, (n, start) in _UNITS.items()
            if low * n <= self.last[0] - start <= high * n
        )
        return "dates" if self.is_date else next(units, "numbers")


def span_of(file: DataFile, times: Times) -> Span:
    """The span of times (n,) of a file, n > 0."""
    fraction = np.zeros(len(times.whole)) if times.fraction is None else times.fraction
    least, most = int(times.whole.min()), int(times.whole.max())
    with np.errstate(invalid="ignore"):  # the largest integer of 64 bits is none as a float
        needs_integers = not times.is_date and bool(
            (times.whole.astype(np.float64).astype(np.int64) != times.whole).any()
        )
    step = int(np.gcd.reduce(fraction.astype(np.int64))) if times.is_date else 0
    return Span(
        file,
        times.is_date,
        (least, float(fraction[times.whole == least].min())),
        (most, float(fraction[times.whole == most].max())),
        next(digits for digits in range(10) if step % 10 ** (9 - digits) == 0),
        bool(fraction.any()),
        needs_integers,
    )


@dataclass(frozen=True)
class Clock:
    """How the times of a source become integers.

    Whole numbers stay as they are, numbers with fractions become the bits of floats, in the order of the floats, and dates count
    units of which a second has `10 ** digits`.
    """

    is_date: bool
    has_fractions: bool
    digits: int

    def ticks(self, times: Times) -> IntArray:
        """One integer for each time, (n,) int64, that orders as the times do."""
        fraction = np.zeros(len(times.whole)) if times.fraction is None else times.fraction
        if (
            self.is_date
        ):  # a product that wraps around comes back with the sum, which was found to fit
            ticks: IntArray = times.whole * 10**self.digits + fraction.astype(np.int64) // 10 ** (
                9 - self.digits
            )
            return ticks
        if not self.has_fractions:
            return times.whole
        bits: IntArray = (times.whole.astype(np.float64) + fraction).view(np.int64)
        # A float below zero has the larger bits the further it is from zero.
        return np.where(bits < 0, bits ^ np.int64(_LIMIT - 1), bits)


def find_clock(spans: Sequence[Span]) -> Clock | None:
    """The clock for all files of a source, None where none has times.

    Raises:
        InputError: if files have unlike times, or times that neither integers of 64 bits nor floats hold exactly.
    """
    if not spans:
        return None
    reference = _reference(spans)
    for span in spans:
        if span.is_date != reference.is_date or span.kind not in {reference.kind, "numbers"}:
            raise InputError(
                span.file.label,
                f"must have {reference.kind} as times like {reference.file.label}",
                span.kind,
                "Convert the times of one file.",
            )
    total = reduce(or_, spans)
    for span in spans:
        if total.has_fractions and span.needs_integers and not total.is_date:
            raise InputError(
                span.file.label,
                "must have whole numbers alone as times where they exceed 2^53",
                found="some times have fractions",
                remedy="Round them.",
            )
        if total.is_date and not all(
            -_LIMIT <= _date_ticks(*time, total.digits) < _LIMIT for time in (span.first, span.last)
        ):
            raise InputError(
                span.file.label,
                f"must have times that fit into 64 bits with {total.digits} digits of a second",
                f"{_date(span.first[0])} to {_date(span.last[0])}",
                "Correct or round the times.",
            )
    return Clock(total.is_date, total.has_fractions, total.digits)


def describe_times(spans: Sequence[Span]) -> str:
    """The kind and the range of the times of a source that has some, in one line."""
    kind, total = _reference(spans).kind, reduce(or_, spans)
    if kind == "numbers":
        first, last = (
            f"{whole + fraction:.15g}" if fraction else str(whole)
            for whole, fraction in (total.first, total.last)
        )
        return f"times are numbers of no known unit, {first} to {last}"
    per_second, start = _UNITS.get(kind, (1, 0))
    first, last = (_date((whole - start) // per_second) for whole, _ in (total.first, total.last))
    return f"times are {kind}, {first} to {last}"


def _reference(spans: Sequence[Span]) -> Span:
    """The first span with a kind that is known, else the first."""
    return next((span for span in spans if span.kind != "numbers"), spans[0])


def _date_ticks(whole: int, fraction: float, digits: int) -> int:
    ticks: int = whole * 10**digits + int(fraction) // 10 ** (9 - digits)
    return ticks


def _date(seconds: int) -> str:
    return str(np.datetime64(seconds, "s")).replace("T", " ")
