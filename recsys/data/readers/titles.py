"""Reader of the titles of items in MovieLens' files of movies."""

from collections.abc import Iterator

import pyarrow as pa

from recsys.data.plain_types import require_plain
from recsys.data.readers.columns import KNOWN_NAMES, normalise
from recsys.data.readers.ids import as_ids
from recsys.data.readers.parquet import open_parquet
from recsys.data.readers.text_rows import read_chunks, read_rows, split_lines
from recsys.data.sources.files import DataFile, open_file
from recsys.errors import InputError

_SEPARATORS = {"u.item": "|", "movies.dat": "::"}
"""Separators of the files without a header: item id and title come first, in Latin-1."""

CHUNK_BYTES = 1 << 20
"""Text that is parsed at a time."""

MAX_TITLE_LENGTH = 1 << 17


def read_titles(file: DataFile) -> pa.Table:
    """Return a table of `item` (int64 or string ids) and `title`, each item once.

    Raises:
        InputError: if the file does not have the form that its name says, or if a row or a title
            is too long.
    """
    if file.name.endswith(".parquet"):
        return _from_parquet(file)
    rows = _rows(file)
    item, title = 0, 1
    if file.name not in _SEPARATORS:
        header = [normalise(name) for name in next(rows, (0, []))[1]]
        item, title = _position(header, "item", file), _position(header, "title", file)
    titles: dict[str, str] = {}
    for line, fields in rows:
        if len(fields) > max(item, title):
            if len(fields[title]) > MAX_TITLE_LENGTH:
                raise InputError(
                    f"{file.label}, row {line}",
                    f"titles must be at most {MAX_TITLE_LENGTH:,} characters long",
                    found=f"this one is {len(fields[title]):,} long",
                    remedy="Correct or remove the row.",
                )
            titles[fields[item]] = fields[title]
    return pa.table(
        {
            "item": as_ids(pa.array(list(titles), pa.string())),
            "title": pa.array(list(titles.values()), pa.string()),
        }
    )


def _rows(file: DataFile) -> Iterator[tuple[int, list[str]]]:
    """Yield the fields of each row, with the number of its first line."""
    separator = _SEPARATORS.get(file.name)
    quoting = "," if separator is None else None
    with open_file(file) as stream:
        for chunk, line in read_chunks(stream, CHUNK_BYTES, quoting, file.label, 1):
            try:
                text = chunk.decode("utf-8" if separator is None else "latin-1")
            except UnicodeDecodeError:
                raise InputError(
                    file.label,
                    "must be UTF-8 text",
                    found="has other bytes",
                    remedy="Save the file as UTF-8.",
                ) from None
            rows = (
                read_rows(text.removeprefix("\ufeff"), ",")
                if separator is None
                else split_lines(text, separator)
            )
            yield from ((line + n_before, fields) for n_before, fields in rows)


def _from_parquet(file: DataFile) -> pa.Table:
    with open_parquet(file) as parquet:
        names = parquet.schema_arrow.names
        item, title = (
            names[_position([normalise(name) for name in names], role, file)]
            for role in ("item", "title")
        )
        require_plain(parquet.schema_arrow, (item, title), file.label)
        table = parquet.read([item, title])
    try:
        return pa.table(
            {"item": as_ids(table[item].combine_chunks()), "title": table[title].cast(pa.string())}
        )
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InputError(
            file.label,
            "must hold ids and titles",
            found=f"holds others ({error})",
            remedy="Convert its columns.",
        ) from None


def _position(names: list[str], role: str, file: DataFile) -> int:
    for name in KNOWN_NAMES[role] + (KNOWN_NAMES["name"] if role == "title" else []):
        if name in names:
            return names.index(name)
    raise InputError(
        file.label,
        f"must have a column with the {role}s",
        found=f"the columns are {', '.join(names)}",
        remedy=f"Name it {role}.",
    )
