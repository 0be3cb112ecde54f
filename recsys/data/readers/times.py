"""Times as the readers give them: exact, whatever form a file holds them in.

`clock` turns them into the integers that are compared from then on.
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
"""How a text can hold a time: as a number, or as an ISO date, without or with a time zone."""

_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_WHOLE = r"^-?\d+(\.0*)?$"
_DATE = r"^(?P<date>[^.]*)(?:\.(?P<digits>\d{1,9}))?(?P<zone>[^.\d][^.]*)?$"


_NUMBER = re.compile(r"\s*-?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*", re.ASCII)
_LIMIT = 2.0**63


@dataclass(frozen=True)
class Times:
    """Times of rows, as exact as the file has them.

    `whole` (n,) int64: the number without its fraction; of a date the seconds since 1970. `fraction` (n,) float64: the fraction
    of the number, of its sign; of a date nanoseconds, never negative. None where all times are whole.
    """

    is_date: bool
    whole: npt.NDArray[np.int64]
    fraction: npt.NDArray[np.float64] | None = None


def is_number(text: str) -> bool:
    """Whether the text is a finite decimal number."""
    return _NUMBER.fullmatch(text) is not None and math.isfinite(float(text))


def find_form(text: str) -> Form | None:
    """The form of a time, None where the text is none."""
    return next((form for form in FORMS if is_time(text, form)), None)


def is_time(text: str, form: Form) -> bool:
    """Whether the text is a time of this form."""
    if form == "number" and is_number(text) and abs(float(text)) < _LIMIT:
        return True
    return parse_times(pa.array([text]), form) is not None


def parse_times(texts: pa.Array, form: Form) -> Times | None:
    """The times in texts without nulls, None where one of them is no time of this form."""
    texts = pc.utf8_trim_whitespace(texts)
    return (
        _parse_numbers(texts)
        if form == "number"
        else _parse_dates(texts, "UTC" if form == "zoned date" else None)
    )


def _parse_numbers(texts: pa.Array) -> Times | None:
    is_whole = pc.match_substring_regex(texts, _WHOLE).to_numpy(zero_copy_only=False)
    try:
        integers = pc.cast(
            pc.replace_substring_regex(texts.filter(pa.array(is_whole)), r"\.0*$", ""), pa.int64()
        )
        times = from_floats(pc.cast(texts.filter(pa.array(~is_whole)), pa.float64()).to_numpy())
    except pa.ArrowInvalid:  # no number, or beyond 64 bits
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
    except pa.ArrowInvalid:  # no date, or of a year that a count of nanoseconds does not reach
        parts = pc.extract_regex(texts, _DATE)
    if parts.null_count:
        return None
    date, digits, offset = (pc.struct_field(parts, name) for name in ("date", "digits", "zone"))
    if not pc.all(
        pc.or_(pc.equal(digits, ""), pc.match_substring_regex(date, r":\d\d:\d\d$")), min_count=0
    ).as_py():
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
    """The times in an array of integers without nulls, None where one is beyond 64 bits with a sign."""
    try:
        return Times(is_date=False, whole=pc.cast(numbers, pa.int64()).to_numpy())
    except pa.ArrowInvalid:
        return None


def from_floats(numbers: npt.NDArray[np.float64]) -> Times | None:
    """The times in numbers (n,), None where one is not finite or beyond 64 bits."""
    if not (np.abs(numbers) < _LIMIT).all():
        return None
    fraction, whole = np.modf(numbers)
    return Times(
        is_date=False, whole=whole.astype(np.int64), fraction=fraction if fraction.any() else None
    )


def from_timestamps(values: pa.Array) -> Times:
    """The times in an array of timestamps or dates without nulls."""
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
    """The times in a column of INT96, read in both units: 64 bits of nanoseconds reach 1677 to 2262, and wrap around beyond."""
    in_ns, in_us = (
        pc.cast(values, pa.int64()).to_numpy() for values in (nanoseconds, microseconds)
    )
    whole, rest = np.divmod(in_us, 10**6)
    # The difference is below 1,000, so that it is right whether or not the nanoseconds have wrapped around.
    return Times(
        is_date=True,
        whole=whole,
        fraction=(rest * 1000 + (in_ns - in_us * 1000)).astype(np.float64),
    )
