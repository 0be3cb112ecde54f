"""The table of file formats, and the reading of a source through it.

The driver lists the fragments of a source; tasks read them, in both passes over the data.
"""

from collections.abc import Iterator
from typing import Protocol

from recsys.config.sections import ColumnsConfig
from recsys.data.readers import parquet, text
from recsys.data.readers.candidates import read_candidates
from recsys.data.readers.fragments import (
    CANDIDATES,
    Batch,
    FileStructure,
    Fragment,
    Range,
)
from recsys.data.sources.files import DataFile, open_file
from recsys.data.sources.layouts import Source
from recsys.data.splits import SPLITS

HEAD_BYTES = 16
"""Number of bytes from which a format is recognised."""


class Format(Protocol):
    """Module that reads a file format."""

    def recognises(self, head: bytes, /) -> bool:
        """Return whether a file with these first `HEAD_BYTES` bytes has the format.

        The bytes are those of the uncompressed file.
        """

    def inspect(self, file: DataFile, columns: ColumnsConfig | None) -> FileStructure:
        """Return the columns of a file, and the ranges in which tasks read it.

        Raises:
            InputError: if the file is damaged or empty, or lacks a needed column.
        """

    def read(self, fragment: Fragment, threshold: float | None) -> Iterator[Batch]:
        """Yield the rows of a fragment in batches.

        A rating of at least `threshold` is a positive; if it is None, every row is.

        Raises:
            InputError: if a row breaks a rule.
        """


FORMATS: dict[str, Format] = {
    "parquet": parquet,
    "text": text,
}
"""Formats by name. The first that recognises a file reads it; text recognises every file."""


def list_fragments(source: Source, columns: ColumnsConfig | None) -> list[Fragment]:
    """Return the fragments of a source in file order.

    Raises:
        InputError: if a file has an unknown format, is damaged or empty, or lacks a needed column.
    """
    fragments: list[Fragment] = []
    for split, files in source.splits.items():
        code = SPLITS.index(split)
        for file in files:
            name = _format_of(file)
            found = FORMATS[name].inspect(file, columns)
            fragments += [
                Fragment(file, name, index, code, range_, found.columns, found.dialect)
                for index, range_ in enumerate(found.ranges, len(fragments))
            ]
    if source.candidates is not None:
        whole = Range(0, None, 1)
        fragments.append(
            Fragment(source.candidates, None, len(fragments), CANDIDATES, whole, columns={})
        )
    return fragments


def read(fragment: Fragment, threshold: float | None) -> Iterator[Batch]:
    """Yield the rows of a fragment in batches.

    A rating of at least `threshold` is a positive; if it is None, every row is.

    Raises:
        InputError: if a row breaks a rule.
    """
    if fragment.format is None:
        return read_candidates(fragment)
    return FORMATS[fragment.format].read(fragment, threshold)


def _format_of(file: DataFile) -> str:
    with open_file(file) as stream:
        head = stream.read(HEAD_BYTES)
    return next(name for name, found in FORMATS.items() if found.recognises(head))
