"""Recognition of columns: the role of each column of a file.

`data.columns` names or numbers columns; the others are recognised by usual header names or, in a
file without a header, by position.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from recsys.config.sections import ColumnsConfig
from recsys.errors import InputError

KNOWN_NAMES = {
    "user": [
        "userid", "user", "uid", "useridx", "userno", "customerid", "customer", "reviewerid",
        "reviewer", "visitorid", "visitor", "memberid", "member", "profileid", "accountid",
        "username",
    ],
    "item": [
        "itemid", "item", "iid", "itemidx", "movieid", "movie", "productid", "product", "asin",
        "parentasin", "bookid", "isbn", "book", "trackid", "track", "songid", "song", "artistid",
        "artist", "businessid", "business", "gameid", "game", "articleid", "article", "newsid",
        "videoid", "video", "animeid", "contentid", "sku",
    ],
    "rating": [
        "rating", "ratings", "score", "stars", "star", "overall", "userrating", "bookrating",
    ],
    "timestamp": [
        "timestamp", "unixreviewtime", "unixtime", "time", "ts", "datetime", "date", "eventtime",
        "ratedat", "createdat", "reviewtime", "reviewdate",
    ],
    "title": [
        "title", "itemtitle", "movietitle", "producttitle", "booktitle", "songtitle", "tracktitle",
        "gametitle", "videotitle", "articletitle", "newstitle", "itemname", "moviename",
        "productname", "bookname", "songname", "trackname", "gamename",
    ],
    "name": ["name"],
}  # fmt: skip
"""Header names by role, in lower case without separators; an earlier name wins.

A column `name` may hold the names of items, which are titles, or of users: its values decide.
"""

ROLES = ("user", "item", "rating", "timestamp")

TITLE_ROLES = ("title", "name")
"""Roles of a column that holds titles, or may hold them."""

NO_TITLES = "none"
"""Value of `data.columns.title` that turns titles off."""


class Column(NamedTuple):
    """A column of a file. `name`: its header, or its role in a file without a header."""

    position: int
    name: str


def normalise(name: str) -> str:
    """Return a header name as it is compared: `User_ID` becomes `userid`."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def is_header(fields: Sequence[str]) -> bool:
    """Return whether a row names a user or an item column."""
    return any(normalise(field) in KNOWN_NAMES["user"] + KNOWN_NAMES["item"] for field in fields)


def chosen_columns(columns: ColumnsConfig | None) -> dict[str, str | int]:
    """Return the columns that `data.columns` sets, by role."""
    if columns is None:
        return {}
    values = {role: getattr(columns, role) for role in (*ROLES, "title")}
    return {
        role: value
        for role, value in values.items()
        if value is not None and (role, value) != ("title", NO_TITLES)
    }


def wants_titles(columns: ColumnsConfig | None) -> bool:
    """Return whether items get titles if the data have them."""
    return columns is None or columns.title != NO_TITLES


def columns_by_name(
    names: Sequence[str], columns: ColumnsConfig | None, place: str
) -> dict[str, Column]:
    """Return the columns of a file by role, from its header. Roles that the file lacks are absent.

    Raises:
        InputError: if a column that `data.columns` sets does not exist, or if no user or item
            column is found.
    """
    found = {
        role: _chosen_position(role, value, names, place)
        for role, value in chosen_columns(columns).items()
    }
    normalised = [normalise(name) for name in names]
    for role, usual in KNOWN_NAMES.items():
        if role in TITLE_ROLES and ("title" in found or not wants_titles(columns)):
            continue
        position = next((normalised.index(name) for name in usual if name in normalised), None)
        if role not in found and position is not None and position not in found.values():
            found[role] = position
    for role in ("user", "item"):
        if role not in found:
            raise InputError(
                place,
                f"must have a column with the {role} ids",
                found=f"the columns are {', '.join(names)}",
                remedy=f"Name it with data.columns.{role}.",
            )
    return {role: Column(position, names[position]) for role, position in found.items()}


def columns_by_position(
    n_columns: int, columns: ColumnsConfig | None, place: str
) -> dict[str, Column]:
    """Return the columns of a file without a header, by role.

    They are user, item, rating and timestamp in this order, unless `data.columns` differs.

    Raises:
        InputError: if there are fewer than two columns, or if a position that `data.columns` sets
            does not exist.
    """
    names = [str(position) for position in range(n_columns)]
    found = {
        role: _chosen_position(role, value, names, place)
        for role, value in chosen_columns(columns).items()
    }
    for position, role in enumerate(ROLES):
        if role not in found and position < n_columns and position not in found.values():
            found[role] = position
    if "user" not in found or "item" not in found:
        raise InputError(
            place,
            "must have a user and an item column",
            found=f"has {n_columns} column{'s' * (n_columns != 1)}",
            remedy="Set data.columns, or separate the columns by comma, tab, semicolon, | or ::.",
        )
    return {role: Column(position, role) for role, position in found.items()}


def _chosen_position(role: str, value: str | int, names: Sequence[str], place: str) -> int:
    if isinstance(value, int):
        if 0 <= value < len(names):
            return value
        raise InputError(
            f"data.columns.{role}",
            f"must be a position from 0 to {len(names) - 1} in {place}",
            value,
            "Count from 0.",
        )
    if value in names:
        return names.index(value)
    raise InputError(
        f"data.columns.{role}",
        f"must name a column of {place}",
        f"{value!r}",
        f"The columns are {', '.join(names)}.",
    )
