"""Titles of items, from columns of the interactions or from a file of items.

The first pass collects titles, and the pipeline chooses among them. A column `name` counts only if
its values are the items' names, not the users'.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc


def titles_of(items: pa.Array, tables: Sequence[pa.Table]) -> pa.Array:
    """Return the title of each item (n,): the first one in the tables, null without one."""
    joined = _join(tables, items.type)
    titles = first_titles(joined)
    position = pc.index_in(pc.cast(items, joined["item"].type), value_set=titles["item"])
    return titles["title"].take(position).combine_chunks()


def first_titles(pairs: pa.Table) -> pa.Table:
    """Return each `item` that has a `title` once, with the first one."""
    grouped = _titled(pairs).group_by("item", use_threads=False).aggregate([("title", "first")])
    return pa.table({"item": grouped["item"], "title": grouped["title_first"]})


@dataclass
class TitleCandidates:
    """Values of a column `name` by item, or by user, until one is found with two values.

    Attributes:
        tables: tables of `item`, which holds users if collected by user, and `title`; each item
            once per table.
        clash: whether an item has several names. `tables` is then empty.
    """

    tables: list[pa.Table] = field(default_factory=list)
    clash: bool = False

    def add(self, ids: pa.Array, names: pa.Array) -> None:
        """Add the names (n,) of the rows of items, or users, (n,)."""
        pairs = pa.table({"item": ids, "title": names})
        self.merge(TitleCandidates([first_titles(pairs)], _have_several(pairs)))

    def merge(self, other: "TitleCandidates") -> None:
        """Add the names of another fragment."""
        self.clash = self.clash or other.clash
        self.tables = [] if self.clash else self.tables + other.tables

    def are_unique(self) -> bool:
        """Return whether each item, or user, has at most one name."""
        return not self.clash and not _have_several(_join(self.tables))


def titles_from_names(by_item: TitleCandidates, by_user: TitleCandidates) -> list[pa.Table]:
    """Return tables of item and title.

    There are none unless each item has one name, and some user has several.
    """
    return by_item.tables if by_item.are_unique() and not by_user.are_unique() else []


def _have_several(pairs: pa.Table) -> bool:
    """Return whether an item has several titles."""
    titled = _titled(pairs)
    distinct = titled.group_by(["item", "title"]).aggregate([])
    return bool(distinct.num_rows > len(pc.unique(titled["item"])))


def _titled(pairs: pa.Table) -> pa.Table:
    """Return the rows whose title is neither empty nor missing."""
    # Comparing a missing title gives null, and `filter` drops those rows.
    return pairs.filter(pc.not_equal(pairs["title"], ""))


def _join(tables: Sequence[pa.Table], kind: pa.DataType | None = None) -> pa.Table:
    """Return all tables as one.

    Items get the type that `kind` and the tables share, or become text if these differ.
    """
    kinds = {table["item"].type for table in tables if table.num_rows}
    kinds |= {kind} if kind is not None else set()
    common = kinds.pop() if len(kinds) == 1 else pa.string()
    cast = [
        pa.table({"item": pc.cast(table["item"], common), "title": table["title"]})
        for table in tables
    ]
    empty = pa.schema({"item": common, "title": pa.string()}).empty_table()
    return pa.concat_tables([empty, *cast])
