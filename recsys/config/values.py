"""Types of the config's values that need more than a bound: durations, URLs, cutoffs.

The fields of `sections` have these types.
"""

import re
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, Strict

from recsys.errors import InputError
from recsys.storage.credentials import strip_password
from recsys.storage.databases import DATABASES, is_shared_database

_UNIT_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_duration(value: object) -> object:
    """Convert `90s`, `10m` or `1h30m` to seconds; return anything but text unchanged.

    Raises:
        InputError: without a place, if the text is no sum of numbers with the units s, m, h or d.
    """
    if not isinstance(value, str):
        return value
    terms = re.findall(r"(\d+(?:\.\d+)?)([smhd])", value)
    if not terms or "".join(number + unit for number, unit in terms) != value:
        remedy = "Write it as 90s, 10m, 1h30m or a number of seconds."
        raise InputError.listing("", [f"must be a duration, but got {value!r}. {remedy}"])
    return sum(float(number) * _UNIT_SECONDS[unit] for number, unit in terms)


def _as_tuple(value: object) -> object:
    return (value,) if isinstance(value, int) else value


def _require_shared_database(url: str) -> str:
    if not is_shared_database(url):
        schemes = " or ".join(f"{name}://" for name in DATABASES)
        remedy = "Without it the record is a file in the study's folder."
        raise InputError.listing("", [f"must begin with {schemes}, but got {url}. {remedy}"])
    return url


Url = Annotated[str, AfterValidator(strip_password)]
DatabaseUrl = Annotated[Url, AfterValidator(_require_shared_database)]
Duration = Annotated[float, BeforeValidator(parse_duration), Field(gt=0)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Cutoffs = Annotated[
    tuple[Annotated[int, Field(ge=1)], ...],
    Strict(False),
    BeforeValidator(_as_tuple),
    Field(min_length=1),
]
Column = str | int
