"""Rows of CSV, TSV and `::` files."""

import io
from collections.abc import Generator, Iterator
from contextlib import closing
from typing import IO, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from recsys.config.sections import ColumnsConfig
from recsys.data.readers.fragments import TITLES, Batch, Fragment, first_order, with_ids
from recsys.data.readers.text_format import BLANKS, TextFormat, find_format
from recsys.data.readers.text_rows import MAX_ROW_BYTES, read_chunks, read_line, read_rows, too_long
from recsys.data.readers.times import Times, from_integers, is_number, is_time, parse_times
from recsys.data.sources.files import DataFile, is_plain, open_file, open_raw
from recsys.errors import InputError

CHUNK_BYTES = 1 << 25
"""Text that is parsed at a time."""

HEAD_BYTES = 1 << 18
"""Text that the format is looked up in, or more where these hold no whole row."""

_SCAN_BYTES = 1 << 20

# No byte of a separator of one character; what `::` becomes for the parser, which knows single characters only.
_UNIT_SEPARATOR = b"\x1f"


def list_pieces(
    file: DataFile, columns: ColumnsConfig | None
) -> tuple[TextFormat, list[tuple[int, int | None, int]]]:
    """A file's format and its pieces as (start, stop, first row); one piece where rows can only be told from the start on.

    Raises:
        InputError: if the head of the file is not in a known form, or has too long rows.
    """
    text_format = _format_of(file, columns)
    start, first_row = text_format.data_start, text_format.first_row
    size = _size_in_lines(file, text_format) if is_plain(file) else None
    if size is None:
        return text_format, [(start, None, first_row)]
    starts = range(start, size, CHUNK_BYTES)
    return text_format, [(start, min(start + CHUNK_BYTES, size), first_row) for start in starts]


def _format_of(file: DataFile, columns: ColumnsConfig | None) -> TextFormat:
    n_bytes = HEAD_BYTES
    while True:
        with open_file(file) as stream:
            head = stream.read(n_bytes)
        text_format = find_format(head, len(head) < n_bytes, columns, file.label)
        if text_format is not None:
            return text_format
        if n_bytes >= MAX_ROW_BYTES:
            raise too_long(f"{file.label}, first rows")
        n_bytes *= 4


def _size_in_lines(file: DataFile, text_format: TextFormat) -> int | None:
    """Bytes of a plain file of which every line is a row, None where a quote may hold a row's line ends."""
    with open_raw(file.path) as stream:
        size = stream.seek(0, io.SEEK_END)
        stream.seek(text_format.data_start)
        quoted = text_format.quoting is not None and any(
            b'"' in block for block in iter(lambda: stream.read(_SCAN_BYTES), b"")
        )
    return None if quoted else size


def read_text(fragment: Fragment, threshold: float | None) -> Iterator[Batch]:
    """The rows of a fragment, in batches; a rating of at least `threshold` is a positive, every row where that is None.

    Raises:
        InputError: if a row breaks a rule: the first such row, by file, line and column.
    """
    text_format = fragment.text
    assert text_format is not None
    order = first_order(fragment)
    with closing(_chunks(fragment, text_format)) as chunks:
        for chunk, line in chunks:
            table = _parse(chunk, text_format)
            times = (
                None
                if table is None or "timestamp" not in table.column_names
                else _times(table, text_format)
            )
            if (
                table is None
                or _has_gaps(table)
                or (times is None and "timestamp" in table.column_names)
            ):
                _explain(
                    chunk,
                    line if line is not None else _line_at(fragment),
                    fragment.file.label,
                    text_format,
                )
            batch = _batch(table, times, text_format, threshold, order)
            order += len(batch.order)
            yield batch


def _chunks(fragment: Fragment, text_format: TextFormat) -> Generator[tuple[bytes, int | None]]:
    """Whole lines of the fragment, each chunk with the number of its first line where the reading can tell it."""
    with open_file(fragment.file) as stream:
        if fragment.stop is not None:
            _seek_line(stream, fragment, text_format)
            chunk = stream.read(max(fragment.stop - stream.tell(), 0))
            if chunk and not chunk.endswith(b"\n"):
                chunk += read_line(stream, fragment.file.label)
            if chunk.strip():
                yield chunk, None
            return
        stream.read(fragment.start)
        yield from read_chunks(
            stream, CHUNK_BYTES, text_format.quoting, fragment.file.label, fragment.first_row
        )


def _seek_line(stream: IO[bytes], fragment: Fragment, text_format: TextFormat) -> None:
    """Go to the first line that starts inside the fragment."""
    if fragment.start == text_format.data_start:
        stream.seek(fragment.start)
    else:
        stream.seek(fragment.start - 1)
        read_line(stream, fragment.file.label)


def _line_at(fragment: Fragment) -> int:
    """The number of the fragment's first line, counted only when an error needs it."""
    assert fragment.text is not None
    with open_file(fragment.file) as stream:
        _seek_line(stream, fragment, fragment.text)
        end = stream.tell()
        stream.seek(0)
        line, left = 1, end
        while left and (data := stream.read(min(left, CHUNK_BYTES))):
            line += data.count(b"\n")
            left -= len(data)
    return line


def _parse(chunk: bytes, text_format: TextFormat) -> pa.Table | None:
    """The used columns by role, None where a row cannot be parsed; times as integers where all are, as text otherwise."""
    integers = None
    if "timestamp" in text_format.columns and text_format.time_form == "number":
        integers = _parse_as(chunk, text_format, pa.int64())
    return _parse_as(chunk, text_format, pa.string()) if integers is None else integers


def _parse_as(chunk: bytes, text_format: TextFormat, time_type: pa.DataType) -> pa.Table | None:
    names = [f"column {position}" for position in range(text_format.n_columns)]
    wanted = {role: names[position] for role, position in text_format.columns.items()}
    ids = pa.dictionary(pa.int32(), pa.string())
    types = {
        "user": ids,
        "item": ids,
        "rating": pa.float64(),
        "timestamp": time_type,
        "title": pa.string(),
        "name": pa.string(),
    }
    wide = text_format.separator == "::"
    try:
        table = pa_csv.read_csv(
            pa.BufferReader(chunk.replace(b"::", _UNIT_SEPARATOR) if wide else chunk),
            pa_csv.ReadOptions(column_names=names, block_size=max(len(chunk), 1)),
            pa_csv.ParseOptions(
                delimiter=_UNIT_SEPARATOR.decode() if wide else text_format.separator,
                quote_char=False if wide else '"',
                newlines_in_values=text_format.quoting is not None and b'"' in chunk,
            ),
            pa_csv.ConvertOptions(
                include_columns=list(wanted.values()),
                column_types={wanted[role]: types[role] for role in wanted},
                null_values=[""],
                strings_can_be_null=False,
            ),
        )
    except pa.ArrowInvalid:
        return None
    return table.rename_columns(list(wanted)).unify_dictionaries()


def _has_gaps(table: pa.Table) -> bool:
    """Whether an id is empty, or a rating is missing or not finite."""
    for role in ("user", "item"):
        dictionary = _single(table[role]).dictionary
        if pc.any(pc.equal(pc.utf8_trim_whitespace(dictionary), "")).as_py():
            return True
    rating = table["rating"] if "rating" in table.column_names else None
    return rating is not None and (
        rating.null_count > 0 or not pc.all(pc.is_finite(rating)).as_py()
    )


def _single(column: pa.ChunkedArray) -> pa.Array:
    combined = column.combine_chunks()
    return combined.chunk(0) if isinstance(combined, pa.ChunkedArray) else combined


def _times(table: pa.Table, text_format: TextFormat) -> Times | None:
    """The times of the rows, None where one is missing or not of the file's form."""
    values = _single(table["timestamp"])
    if values.null_count:
        return None
    return (
        from_integers(values)
        if values.type == pa.int64()
        else parse_times(values, text_format.time_form)
    )


def _ids(table: pa.Table, role: str, text_format: TextFormat) -> pa.DictionaryArray:
    column = _single(table[role])
    if role in text_format.padded:
        stripped = pc.utf8_trim(column.dictionary, "".join(BLANKS))
        column = pa.DictionaryArray.from_arrays(column.indices, stripped)
    return with_ids(column)


def _batch(
    table: pa.Table,
    times: Times | None,
    text_format: TextFormat,
    threshold: float | None,
    order: int,
) -> Batch:
    n = table.num_rows
    rating = table["rating"].to_numpy() if "rating" in table.column_names else None
    return Batch(
        user=_ids(table, "user", text_format),
        item=_ids(table, "item", text_format),
        positive=np.ones(n, dtype=bool)
        if rating is None or threshold is None
        else rating >= threshold,
        rating_max=None if rating is None else float(rating.max()),
        time=times,
        order=np.arange(order, order + n, dtype=np.int64),
        title=next((_single(table[role]) for role in TITLES if role in table.column_names), None),
    )


def _explain(chunk: bytes, first_line: int, label: str, text_format: TextFormat) -> NoReturn:
    """Raise the error of the first row that breaks a rule, found the slow way."""
    text = chunk.decode("utf-8", errors="surrogateescape")
    for start, fields in read_rows(text, text_format.separator):
        _check_row(fields, f"{label}, row {first_line + start}", text_format)
    raise InputError(
        f"{label}, after row {first_line}",
        "must be regular text",
        found="a row cannot be parsed",
        remedy="Look for a stray quote.",
    )


def _check_row(fields: list[str], place: str, text_format: TextFormat) -> None:
    if len(fields) != text_format.n_columns:
        raise InputError(
            place,
            f"must have {text_format.n_columns} fields",
            f"{len(fields)}",
            "Correct or remove the row.",
        )
    remedy = "Correct or remove the row."
    if text_format.first_row == 1:
        remedy = "Correct or remove the row, or say with data.columns which column is which."
    for role, position in text_format.columns.items():
        value, column = fields[position], f"{place}, column {text_format.labels[role]}"
        if any("\udc80" <= character <= "\udcff" for character in value):
            raise InputError(column, "must be UTF-8", f"{value!r}", "Save the file as UTF-8.")
        if role in ("user", "item") and not value.strip():
            raise InputError(
                column, "must be an id", found="is empty", remedy="Correct or remove the row."
            )
        if role == "rating" and not is_number(value):
            raise InputError(column, "must be a number", f"{value!r}", remedy)
        if role == "timestamp" and not is_time(value, text_format.time_form):
            is_date = text_format.time_form != "number"
            kind = (
                "an ISO date like the others"
                if is_date
                else "a number within 64 bits or an ISO date"
            )
            raise InputError(column, f"must be {kind}", f"{value!r}", remedy)
