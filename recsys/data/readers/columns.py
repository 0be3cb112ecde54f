"""Which column of a file holds what.

Used by the readers: columns are named or numbered by `data.columns`, recognised from usual header names, or, in a file without
a header, taken by position.
"""

import re
from collections.abc import Sequence

from recsys.config.sections import ColumnsConfig
from recsys.errors import InputError

KNOWN_NAMES = {
    "user": (
        *(
            "userid",
            "user",
            "uid",
            "useridx",
            "userno",
            "customerid",
            "customer",
            "reviewerid",
            "reviewer",
        ),
        *("visitorid", "visitor", "memberid", "member", "profileid", "accountid", "username"),
    ),
    "item": (
        *(
            "itemid",
            "item",
            "iid",
            "itemidx",
            "movieid",
            "movie",
            "productid",
            "product",
            "asin",
            "parentasin",
            "bookid",
            "isbn",
        ),
        *(
            "book",
            "trackid",
            "track",
            "songid",
            "song",
            "artistid",
            "artist",
            "businessid",
            "business",
            "gameid",
            "game",
        ),
        *("articleid", "article", "newsid", "videoid", "video", "animeid", "contentid", "sku"),
    ),
    "rating": (
        "rating",
        "ratings",
        "score",
        "stars",
        "star",
        "overall",
        "userrating",
        "bookrating",
    ),
    "timestamp": (
        *(
            "timestamp",
            "unixreviewtime",
            "unixtime",
            "time",
            "ts",
            "datetime",
            "date",
            "eventtime",
            "ratedat",
            "createdat",
        ),
        *("reviewtime", "reviewdate"),
    ),
    "title": (
        *(
            "title",
            "itemtitle",
            "movietitle",
            "producttitle",
            "booktitle",
            "songtitle",
            "tracktitle",
            "gametitle",
            "videotitle",
        ),
        *(
            "articletitle",
            "newstitle",
            "itemname",
            "moviename",
            "productname",
            "bookname",
            "songname",
            "trackname",
            "gamename",
        ),
    ),
    "name": ("name",),
}
"""Header names by role, compared in lower case without separators; the earlier in a list wins.

A `name` can be the item's, and then is its title, or the user's: its values decide.
"""

ROLES = ("user", "item", "rating", "timestamp")
NO_TITLES = "none"
"""Value of `data.columns.title` that turns titles off."""


def plain(name: str) -> str:
    """A header name as it is compared: `User_ID` becomes `userid`."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def names_columns(fields: Sequence[str]) -> bool:
    """Whether a line names a user or an item column, and so is a header."""
    return any(plain(field) in KNOWN_NAMES["user"] + KNOWN_NAMES["item"] for field in fields)


def chosen_columns(columns: ColumnsConfig | None) -> dict[str, str | int]:
    """The roles that `data.columns` gives a column."""
    if columns is None:
        return {}
    values = {role: getattr(columns, role) for role in (*ROLES, "title")}
    return {
        role: value
        for role, value in values.items()
        if value is not None and (role, value) != ("title", NO_TITLES)
    }


def wants_titles(columns: ColumnsConfig | None) -> bool:
    """Whether items get titles where there are any."""
    return columns is None or columns.title != NO_TITLES


def columns_by_name(
    names: Sequence[str], columns: ColumnsConfig | None, place: str
) -> dict[str, int]:
    """Position of each role's column among the header's `names`; roles that the file lacks are left out.

    Raises:
        InputError: if a column that `data.columns` sets is not there, or no user or item column is found.
    """
    found = {
        role: _chosen_position(role, value, names, place)
        for role, value in chosen_columns(columns).items()
    }
    known = [plain(name) for name in names]
    for role, usual in KNOWN_NAMES.items():
        if role in ("title", "name") and ("title" in found or not wants_titles(columns)):
            continue
        position = next((known.index(name) for name in usual if name in known), None)
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
    return found


def columns_by_position(
    n_columns: int, columns: ColumnsConfig | None, place: str
) -> dict[str, int]:
    """Position of each role's column in a file without a header: user, item, rating, timestamp unless `data.columns` differs.

    Raises:
        InputError: if there are fewer than two columns, or a position of `data.columns` is not there.
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
    return found


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
