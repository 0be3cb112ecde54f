"""Exact times, parsed from each form in which files hold them.

`preprocessing.time_encoding` turns them into integers, which all later steps compare.
"""

import math
import re
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Form = Literal["number", "date", "zoned date"]
FORMS: tuple[Form, ...] = ("number", "date", "zoned date")
"""Forms of a time in text: a number, or an ISO date without or with a time zone."""

_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_WHOLE = r"^-?\d+(\.0*)?$"
_DATE = r"^(?P<date>[^.]*)(?:\.(?P<digits>\d{1,9}))?(?P<zone>[^.\d][^.]*)?$"
_NUMBER = re.compile(r"\s*-?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*", re.ASCII)
_LIMIT = 2.0**63


@dataclass(frozen=True)
class Times:
    """Times of rows, as exact as in the file.

    `whole` (n,) int64: numbers without their fractions; for dates, seconds since 1970.
    `fraction` (n,) float64: fractions of the numbers, with their signs; for dates, nanoseconds,
    never negative. None if all times are whole.
    """

    is_date: bool
    whole: npt.NDArray[np.int64]
    fraction: npt.NDArray[np.float64] | None = None


def is_number(text: str) -> bool:
    """Return whether a text is a finite decimal number."""
    return _NUMBER.fullmatch(text) is not None and math.isfinite(float(text))


def find_form(text: str) -> Form | None:
    """Return the form of a time, None if the text is not a time."""
    return next((form for form in FORMS if is_time(text, form)), None)


def is_time(text: str, form: Form) -> bool:
    """Return whether a text is a time of this form."""
    if form == "number" and is_number(text) and abs(float(text)) < _LIMIT:
        return True
    return parse_times(pa.array([text]), form) is not None


def parse_times(texts: pa.Array, form: Form) -> Times | None:
    """Return the times in texts (n,) without nulls, None if one is not a time of this form."""
    texts = pc.utf8_trim_whitespace(texts)
    if form == "number":
        return _parse_numbers(texts)
    return _parse_dates(texts, "UTC" if form == "zoned date" else None)


def _parse_numbers(texts: pa.Array) -> Times | None:
    is_whole = pc.match_substring_regex(texts, _WHOLE).to_numpy(zero_copy_only=False)
    try:
        integers = pc.cast(
            pc.replace_substring_regex(texts.filter(pa.array(is_whole)), r"\.0*$", ""), pa.int64()
        )
        times = from_floats(pc.cast(texts.filter(pa.array(~is_whole)), pa.float64()).to_numpy())
    except pa.ArrowInvalid:  # not a number, or beyond 64 bits
        return None
    if times is None:
        return None
    whole, fraction = np.empty(len(texts), dtype=np.int64), np.zeros(len(texts))
    whole[is_whole], whole[~is_whole] = integers.to_numpy(), times.whole
    fraction[~is_whole] = 0.0 if times.fraction is None else times.fraction
    return Times(is_date=False, whole=whole, fraction=fraction if fraction.any() else None)


def _parse_dates(texts: pa.Array, zone: str | None) -> Times | None:
    try:
        return from_timestamps(pc.cast(texts, pa.timestamp("ns", zone)))
    except pa.ArrowInvalid:  # not a date, or of a year that nanoseconds of 64 bits do not reach
        matches = pc.extract_regex(texts, _DATE)
    if matches.null_count:
        return None
    date, digits, offset = (pc.struct_field(matches, name) for name in ("date", "digits", "zone"))
    # Digits of a second may only follow a second.
    has_seconds = pc.match_substring_regex(date, r":\d\d:\d\d$")
    if not pc.all(pc.or_(pc.equal(digits, ""), has_seconds), min_count=0).as_py():
        return None
    try:
        seconds = from_timestamps(
            pc.cast(pc.binary_join_element_wise(date, offset, ""), pa.timestamp("s", zone))
        )
    except pa.ArrowInvalid:
        return None
    return Times(
        is_date=True,
        whole=seconds.whole,
        fraction=pc.cast(pc.utf8_rpad(digits, 9, "0"), pa.float64()).to_numpy(),
    )


def from_integers(numbers: pa.Array) -> Times | None:
    """Return the times in integers (n,) without nulls, None if one exceeds signed 64 bits."""
    try:
        return Times(is_date=False, whole=pc.cast(numbers, pa.int64()).to_numpy())
    except pa.ArrowInvalid:
        return None


def from_floats(numbers: npt.NDArray[np.float64]) -> Times | None:
    """Return the times in floats (n,), None if one is not finite or exceeds 64 bits."""
    if not (np.abs(numbers) < _LIMIT).all():
        return None
    fraction, whole = np.modf(numbers)
    return Times(
        is_date=False, whole=whole.astype(np.int64), fraction=fraction if fraction.any() else None
    )


def from_timestamps(values: pa.Array) -> Times:
    """Return the times in Arrow timestamps or dates (n,) without nulls."""
    if pa.types.is_date(values.type):
        values = pc.cast(values, pa.timestamp("s" if pa.types.is_date32(values.type) else "ms"))
    per_second = _PER_SECOND[values.type.unit]
    whole, rest = np.divmod(pc.cast(values, pa.int64()).to_numpy(), per_second)
    return Times(
        is_date=True,
        whole=whole,
        fraction=(rest * (10**9 // per_second)).astype(np.float64) if rest.any() else None,
    )


def from_int96(nanoseconds: pa.Array, microseconds: pa.Array) -> Times:
    """Return the times in a column of INT96 (n,), read in both units.

    64 bits of nanoseconds reach from 1677 to 2262 and overflow beyond.
    """
    in_ns, in_us = (
        pc.cast(values, pa.int64()).to_numpy() for values in (nanoseconds, microseconds)
    )
    whole, rest = np.divmod(in_us, 10**6)
    # The difference is below 1,000: it is right even if the nanoseconds have overflowed.
    return Times(
        is_date=True,
        whole=whole,
        fraction=(rest * 1000 + (in_ns - in_us * 1000)).astype(np.float64),
    )
