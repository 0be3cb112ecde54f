"""Encoding of times: exact times of any unit become one integer per row, which orders as they do.

The first pass over the data keeps the `TimeRange` of each file. `choose_encoding` derives from all
of them an encoding that is exact for the whole column, and the second pass applies it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_

import numpy as np

from recsys.data.readers.times import Times
from recsys.data.sources.files import DataFile
from recsys.errors import InputError
from recsys.kernels.arrays import IntArray

_UNITS = {
    "seconds": (1, 0),
    "milliseconds": (10**3, 0),
    "microseconds": (10**6, 0),
    ".NET ticks": (10**7, 621_355_968_000_000_000),
    "nanoseconds": (10**9, 0),
}
"""Units of numbers that are recognised: units per second, and the count at the start of 1970."""

_PLAUSIBLE = (315_532_800, 4_102_444_800)
"""Seconds of 1980 and 2100. The unit is the first of `_UNITS` that puts the latest time between
them: nanoseconds of 1990 count as ticks."""

_LIMIT = 1 << 63


@dataclass(frozen=True)
class TimeRange:
    """Range and precision of the times of a file.

    Attributes:
        file: the file.
        is_date: whether the times are dates, not numbers.
        first: the earliest time, as its whole part and its fraction.
        last: the latest time, likewise.
        digits: decimal digits of a second that the dates need.
        has_fractions: whether a time has a fraction.
        needs_integers: whether a number has more digits than a float holds.
    """

    file: DataFile
    is_date: bool
    first: tuple[int, float]
    last: tuple[int, float]
    digits: int
    has_fractions: bool
    needs_integers: bool

    def __or__(self, other: "TimeRange") -> "TimeRange":
        """Return the range of both; the file is the first one's."""
        return TimeRange(
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
        """`dates`, the unit of the numbers, or `numbers` if it is not recognised."""
        low, high = _PLAUSIBLE
        units = (
            unit
            for unit, (n, start) in _UNITS.items()
            if low * n <= self.last[0] - start <= high * n
        )
        return "dates" if self.is_date else next(units, "numbers")


def range_of(file: DataFile, times: Times) -> TimeRange:
    """Return the range of times (n,) of a file, n > 0."""
    fraction = np.zeros(len(times.whole)) if times.fraction is None else times.fraction
    least, most = int(times.whole.min()), int(times.whole.max())
    with np.errstate(invalid="ignore"):  # 2^63 - 1 becomes 2^63, beyond int64
        needs_integers = not times.is_date and bool(
            (times.whole.astype(np.float64).astype(np.int64) != times.whole).any()
        )
    # Nanoseconds that divide all fractions: its trailing zeros are digits nobody needs.
    step = int(np.gcd.reduce(fraction.astype(np.int64))) if times.is_date else 0
    return TimeRange(
        file,
        times.is_date,
        (least, float(fraction[times.whole == least].min())),
        (most, float(fraction[times.whole == most].max())),
        next(digits for digits in range(10) if step % 10 ** (9 - digits) == 0),
        bool(fraction.any()),
        needs_integers,
    )


@dataclass(frozen=True)
class TimeEncoding:
    """Encoding of the times of a source as integers.

    Whole numbers stay as they are. Numbers with fractions become the bits of floats. Dates become
    counts of units of which a second has `10 ** digits`.
    """

    is_date: bool
    has_fractions: bool
    digits: int

    def encode(self, times: Times) -> IntArray:
        """Return an integer for each time, (n,) int64, in the order of the times."""
        fraction = np.zeros(len(times.whole)) if times.fraction is None else times.fraction
        if self.is_date:
            # The product may wrap around. The sum fits, as `choose_encoding` has checked, so it
            # wraps back.
            units = fraction.astype(np.int64) // 10 ** (9 - self.digits)
            dates: IntArray = times.whole * 10**self.digits + units
            return dates
        if not self.has_fractions:
            return times.whole
        bits: IntArray = (times.whole.astype(np.float64) + fraction).view(np.int64)
        # The bits of positive floats order as the floats do, those of negative ones in reverse:
        # flip all but the sign.
        return np.where(bits < 0, bits ^ np.int64(_LIMIT - 1), bits)


def choose_encoding(ranges: Sequence[TimeRange]) -> TimeEncoding | None:
    """Return the encoding of all files of a source, None if no file has times.

    Raises:
        InputError: if the times of two files differ in kind, or if neither 64-bit integers nor
            floats hold all times exactly.
    """
    if not ranges:
        return None
    reference = _reference(ranges)
    total = reduce(or_, ranges)
    for found in ranges:
        if found.is_date != reference.is_date or found.kind not in {reference.kind, "numbers"}:
            raise InputError(
                found.file.label,
                f"must have {reference.kind} as times like {reference.file.label}",
                found.kind,
                "Convert the times of one file.",
            )
    for found in ranges:
        _check_exact(found, total)
    return TimeEncoding(total.is_date, total.has_fractions, total.digits)


def _check_exact(found: TimeRange, total: TimeRange) -> None:
    """Check that the encoding for `total` is exact for the times of one file."""
    if total.has_fractions and found.needs_integers and not total.is_date:
        raise InputError(
            found.file.label,
            "must have only whole numbers as times if they exceed 2^53",
            found="some times have fractions",
            remedy="Round them.",
        )
    if total.is_date and not all(
        -_LIMIT <= _encode_date(*time, total.digits) < _LIMIT for time in (found.first, found.last)
    ):
        raise InputError(
            found.file.label,
            f"must have times that fit into 64 bits with {total.digits} digits of a second",
            f"{_date(found.first[0])} to {_date(found.last[0])}",
            "Correct or round the times.",
        )


def describe_times(ranges: Sequence[TimeRange]) -> str:
    """Return a line with the kind and the range of the times of a source that has some."""
    kind, total = _reference(ranges).kind, reduce(or_, ranges)
    if kind == "numbers":
        first, last = (
            f"{whole + fraction:.15g}" if fraction else str(whole)
            for whole, fraction in (total.first, total.last)
        )
        return f"times are numbers of no known unit, {first} to {last}"
    per_second, start = _UNITS.get(kind, (1, 0))
    first, last = (_date((whole - start) // per_second) for whole, _ in (total.first, total.last))
    return f"times are {kind}, {first} to {last}"


def _reference(ranges: Sequence[TimeRange]) -> TimeRange:
    """Return the first range whose kind is recognised, else the first."""
    return next((found for found in ranges if found.kind != "numbers"), ranges[0])


def _encode_date(whole: int, fraction: float, digits: int) -> int:
    """Encode a date as `TimeEncoding` does, in Python's unbounded integers."""
    encoded: int = whole * 10**digits + int(fraction) // 10 ** (9 - digits)
    return encoded


def _date(seconds: int) -> str:
    return str(np.datetime64(seconds, "s")).replace("T", " ")
