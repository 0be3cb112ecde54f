"""Titles of items from columns of the interactions: one title an item, and only from a column that is the items'.

Behind the readers: the first walk over the data collects the titles, the pipeline chooses among them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc


def titles_of(items: pa.Array, tables: Sequence[pa.Table]) -> pa.Array:
    """Title of each item, the first one that a table names, null without one."""
    joined = _join(tables, items.type)
    titles = first_titles(joined)
    return (
        titles["title"]
        .take(pc.index_in(pc.cast(items, joined["item"].type), value_set=titles["item"]))
        .combine_chunks()
    )


def first_titles(pairs: pa.Table) -> pa.Table:
    """Each `item` once, with the first `title` that it has; items without one are left out."""
    grouped = _titled(pairs).group_by("item", use_threads=False).aggregate([("title", "first")])
    return pa.table({"item": grouped["item"], "title": grouped["title_first"]})


@dataclass
class Names:
    """What a column `name` calls items, or users, for as long as it calls each of them alike.

    `tables`: item, or user in its place, and title, each once in a table. `clash`: one was found with several names.
    """

    tables: list[pa.Table] = field(default_factory=list)
    clash: bool = False

    def add(self, ids: pa.Array, names: pa.Array) -> None:
        """Add rows, (n,) each."""
        pairs = pa.table({"item": ids, "title": names})
        self.merge(Names([first_titles(pairs)], _have_several(pairs)))

    def merge(self, other: "Names") -> None:
        """Add the names from another piece of the data."""
        self.clash = self.clash or other.clash
        self.tables = [] if self.clash else self.tables + other.tables

    def are_unique(self) -> bool:
        """Whether each item, or user, has one name at most."""
        return not self.clash and not _have_several(_join(self.tables))


def titles_from_names(of_items: Names, of_users: Names) -> list[pa.Table]:
    """Tables of item and title: none unless the name follows from the item, and does not from the user."""
    return of_items.tables if of_items.are_unique() and not of_users.are_unique() else []


def _have_several(pairs: pa.Table) -> bool:
    """Whether an item has several titles."""
    titled = _titled(pairs)
    return bool(
        titled.group_by(["item", "title"]).aggregate([]).num_rows > len(pc.unique(titled["item"]))
    )


def _titled(pairs: pa.Table) -> pa.Table:
    return pairs.filter(
        pc.not_equal(pairs["title"], "")
    )  # a missing title is neither equal nor not: it goes too


def _join(tables: Sequence[pa.Table], kind: pa.DataType | None = None) -> pa.Table:
    """All tables as one, with items of `kind`, or of the tables' own; as text where these differ."""
    kinds = {table["item"].type for table in tables if table.num_rows} | (
        {kind} if kind is not None else set()
    )
    common = kinds.pop() if len(kinds) == 1 else pa.string()
    cast = [
        pa.table({"item": pc.cast(table["item"], common), "title": table["title"]})
        for table in tables
    ]
    return pa.concat_tables(
        [pa.schema({"item": common, "title": pa.string()}).empty_table(), *cast]
    )
