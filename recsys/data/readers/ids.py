"""Ids of users and items: integers, or exact text."""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from recsys.data.readers.fragments import Fragment


def as_ids(values: pa.Array) -> pa.Array:
    """Return int64 ids if all values are integers in plain decimal form, else string ids.

    Text is exact: '007' and '7' are two ids, and so are 'x' and 'x '.
    """
    if pa.types.is_integer(values.type) and values.type != pa.uint64():
        return pc.cast(values, pa.int64())
    text = pc.cast(values, pa.string())
    if not pc.all(pc.match_substring_regex(text, r"^(0|-?[1-9][0-9]{0,18})$"), min_count=0).as_py():
        return text
    try:
        return pc.cast(text, pa.int64())
    except pa.ArrowInvalid:  # beyond 64 bits
        return text


def as_id_column(column: pa.DictionaryArray) -> pa.DictionaryArray:
    """Return a column with ids in its dictionary."""
    return pa.DictionaryArray.from_arrays(column.indices, as_ids(column.dictionary))


def describe_blanks(fragments: Sequence[Fragment], users: pa.Array, items: pa.Array) -> list[str]:
    """Return a note on each column whose padding was removed, and on each kind of ids with blanks.

    Args:
        fragments: All fragments of a source.
        users: Distinct user ids.
        items: Distinct item ids.
    """
    notes = {
        f"blanks around {fragment.columns[role].name} in {fragment.file.label} are padding and "
        "not part of the ids": None
        for fragment in fragments
        if fragment.dialect is not None
        for role in fragment.dialect.padded
    }
    for role, ids in (("user", users), ("item", items)):
        if ids.type == pa.string():
            blank = ids.filter(pc.not_equal(pc.utf8_trim_whitespace(ids), ids))
            if len(blank):
                notes[f"blanks are part of {role} ids, as in {blank[0].as_py()!r}"] = None
    return list(notes)
