"""Titles of items from MovieLens' files of movies."""

import csv
import io

import pyarrow as pa

from recsys.data.columns import KNOWN_NAMES, plain
from recsys.data.files import DataFile, open_file
from recsys.data.fragments import as_ids
from recsys.data.parquet_reader import open_parquet
from recsys.data.plain_types import require_plain

_LINE_FORMS = {"u.item": "|", "movies.dat": "::"}
"""Separator of the files without a header: item id and title come first, in Latin-1."""


def read_titles(file: DataFile) -> pa.Table:
    """Table of `item` (int64 or string ids) and `title`, each item once.

    Raises:
        ValueError: if the file is not in the form that its name promises.
    """
    if file.name.endswith(".parquet"):
        return _from_parquet(file)
    with open_file(file) as stream:
        data = stream.read()
    separator = _LINE_FORMS.get(file.name)
    if separator is not None:
        rows = [line.split(separator, 2)[:2] for line in data.decode("latin-1").splitlines() if line]
        return _table([row for row in rows if len(row) == 2])
    try:
        lines = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""))
        header = [plain(name) for name in next(lines, [])]
    except UnicodeDecodeError:
        raise ValueError(f"{file.label}: must be UTF-8 text, but has other bytes. Save the file as UTF-8.") from None
    item, title = _position(header, "item", file), _position(header, "title", file)
    return _table([[row[item], row[title]] for row in lines if len(row) > max(item, title)])


def _from_parquet(file: DataFile) -> pa.Table:
    with open_parquet(file) as parquet:
        names = parquet.schema_arrow.names
        item, title = (names[_position([plain(name) for name in names], role, file)] for role in ("item", "title"))
        require_plain(parquet.schema_arrow, (item, title), file.label)
        table = parquet.read([item, title])
    try:
        return pa.table({"item": as_ids(table[item].combine_chunks()), "title": table[title].cast(pa.string())})
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise ValueError(f"{file.label}: must hold ids and titles, but holds others ({error}). Convert its columns.") from None


def _position(names: list[str], role: str, file: DataFile) -> int:
    for name in KNOWN_NAMES[role] + (KNOWN_NAMES["name"] if role == "title" else ()):
        if name in names:
            return names.index(name)
    raise ValueError(
        f"{file.label}: must have a column with the {role}s, but the columns are {', '.join(names)}. Name it {role}."
    )


def _table(rows: list[list[str]]) -> pa.Table:
    titles = {row[0]: row[1] for row in rows}
    return pa.table({"item": as_ids(pa.array(list(titles), pa.string())), "title": pa.array(list(titles.values()), pa.string())})
