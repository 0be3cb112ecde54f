"""Interactions from files, piece by piece, all formats in one form.

Stands between the layouts and the pipeline: the driver cuts a source into fragments, tasks read them. Both walks over the data
(collecting ids, encoding them) read with the same function.
"""

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from recsys.config.sections import ColumnsConfig
from recsys.data.readers.candidates import read_candidates
from recsys.data.readers.fragments import CANDIDATES, Batch, Fragment
from recsys.data.readers.parquet import list_parquet_pieces, read_parquet
from recsys.data.readers.text import list_pieces, read_text
from recsys.data.sources.files import DataFile, open_file
from recsys.data.sources.layouts import Source
from recsys.data.splits import SPLITS


def list_fragments(source: Source, columns: ColumnsConfig | None) -> list[Fragment]:
    """The pieces of a source, in file order.

    Raises:
        InputError: if a file is in no known form, damaged, empty, or lacks a needed column.
    """
    fragments: list[Fragment] = []
    for part_files in source.parts:
        for file in part_files.files:
            fragments += _fragments_of(file, SPLITS.index(part_files.part), len(fragments), columns)
    if source.candidates is not None:
        fragments.append(
            Fragment(source.candidates, "candidates", len(fragments), CANDIDATES, 0, None, 1)
        )
    return fragments


def read(fragment: Fragment, threshold: float | None) -> Iterator[Batch]:
    """The rows of a fragment, in batches; a rating of at least `threshold` is a positive, every row where that is None.

    Raises:
        InputError: if a row breaks a rule.
    """
    if fragment.kind == "parquet":
        return read_parquet(fragment, threshold)
    if fragment.kind == "candidates":
        return read_candidates(fragment)
    return read_text(fragment, threshold)


def describe_blanks(fragments: Sequence[Fragment], users: pa.Array, items: pa.Array) -> list[str]:
    """Which blanks around ids were left out and which count, each in a line; `users`, `items`: the ids."""
    notes = {
        f"blanks around {fragment.text.labels[role]} in {fragment.file.label} fill up the column and are no part of the ids": None
        for fragment in fragments
        if fragment.text is not None
        for role in fragment.text.padded
    }
    for role, ids in (("user", users), ("item", items)):
        if ids.type == pa.string():
            blank = ids.filter(pc.not_equal(pc.utf8_trim_whitespace(ids), ids))
            if len(blank):
                notes[f"blanks are part of {role} ids, as in {blank[0].as_py()!r}"] = None
    return list(notes)


def _fragments_of(
    file: DataFile, part: int, first_index: int, columns: ColumnsConfig | None
) -> list[Fragment]:
    with open_file(file) as stream:
        is_parquet = stream.read(4) == b"PAR1"
    if is_parquet:
        found, groups = list_parquet_pieces(file, columns)
        return [
            Fragment(file, "parquet", first_index + n, part, start, stop, row, columns=found)
            for n, (start, stop, row) in enumerate(groups)
        ]
    text_format, pieces = list_pieces(file, columns)
    return [
        Fragment(file, "text", first_index + n, part, start, stop, row, text=text_format)
        for n, (start, stop, row) in enumerate(pieces)
    ]
