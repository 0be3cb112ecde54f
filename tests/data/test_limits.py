"""Small or odd files that would take much memory are refused in one line, before they do."""

import gzip
import io
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from recsys.config.sections import DataConfig
from recsys.data.readers.formats import list_fragments, read
from recsys.data.readers.titles import MAX_TITLE_LENGTH, read_titles
from recsys.data.sources.catalog import find_embedded
from recsys.data.sources.files import DataFile
from recsys.data.sources.layouts import find_source
from recsys.errors import InputError

MIB = 1 << 20
LONG_ROW = (
    r"rows must be at most 16,777,216 bytes long, but one is longer\. Look for missing line ends, "
    r"or for a stray quote\."
)
TOO_MUCH = (
    r"must unpack to at most 200 times its size or 268,435,456 bytes, but unpacks to more\. If "
    r"you trust it, unpack it and"
)
ROWS = b"".join(b"%d,%d,5,%d\n" % (row % 40, row % 30, row) for row in range(1000))


def check_refused(read_it: Callable[[], object], message: str) -> None:
    """Check that a call raises an `InputError` and takes at most 400 MB of Python's memory."""
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=message) as caught:
            read_it()
        assert tracemalloc.get_traced_memory()[1] < 400e6
    finally:
        tracemalloc.stop()
    assert isinstance(caught.value, InputError)


def n_rows(path: Path) -> int:
    fragments = list_fragments(find_source(DataConfig(source=str(path))), None)
    return sum(len(batch.order) for fragment in fragments for batch in read(fragment, None))


def gigabyte(before: bytes) -> bytes:
    """Return a gzip file of a megabyte: a text, followed by a field of a gigabyte."""
    return gzip.compress(before) + gzip.compress(b"x" * (16 * MIB)) * 64


def zip_with(path: Path, texts: dict[str, bytes], long: str, n_mib: int) -> None:
    """Write a zip with these texts; a field of `n_mib` MiB follows the text named `long`."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in texts.items():
            with archive.open(name, "w") as member:
                member.write(text)
                for _ in range(n_mib if name == long else 0):
                    member.write(b"x" * MIB)


@pytest.mark.parametrize(
    ("before", "message"),
    [
        (b"user,item,rating\n1,", rf"data\.csv\.gz, first rows: {LONG_ROW}"),
        (b"1,2,5,4\n" + ROWS * 50 + b'1,2,5,"', rf"data\.csv\.gz, row 50002: {LONG_ROW}"),
        (b"user,item\n1::2", rf"data\.csv\.gz, first rows: {LONG_ROW}"),
        (b"", rf"data\.csv\.gz, first rows: {LONG_ROW}"),
    ],
)
def test_a_gzip_with_a_field_of_a_gigabyte(tmp_path: Path, before: bytes, message: str) -> None:
    (tmp_path / "data.csv.gz").write_bytes(gigabyte(before))
    assert (tmp_path / "data.csv.gz").stat().st_size < 1.3e6
    check_refused(lambda: n_rows(tmp_path / "data.csv.gz"), message)


def test_a_zip_with_a_field_of_300_megabytes(tmp_path: Path) -> None:
    zip_with(tmp_path / "data.zip", {"ratings.csv": b"user,item\n1,2\n1,"}, "ratings.csv", 300)
    check_refused(lambda: n_rows(tmp_path / "data.zip"), rf"data\.zip/ratings\.csv: {TOO_MUCH}")
    zip_with(
        tmp_path / "data.zip",
        {"ratings.csv": b"user,item\n" + ROWS, "movies.csv": b"movieId,title\n1,"},
        "movies.csv",
        300,
    )
    check_refused(
        lambda: read_titles(DataFile(str(tmp_path / "data.zip"), "movies.csv")),
        rf"data\.zip/movies\.csv: {TOO_MUCH}",
    )


@pytest.mark.parametrize(
    ("name", "before", "row"),
    [
        ("movies.csv", b"movieId,title\n1,x\n2,", 3),
        ("movies.dat", b"1::x\n2::", 2),
        ("u.item", b"", 1),
    ],
)
def test_titles_with_a_field_of_100_megabytes(
    tmp_path: Path, name: str, before: bytes, row: int
) -> None:
    zip_with(tmp_path / "data.zip", {name: before}, name, 100)
    check_refused(
        lambda: read_titles(DataFile(str(tmp_path / "data.zip"), name)),
        rf"{name}, row {row}: {LONG_ROW}",
    )


def test_long_titles(tmp_path: Path) -> None:
    path = tmp_path / "movies.csv"
    path.write_text(f'movieId,title\n1,"{"x" * MAX_TITLE_LENGTH}"\n')
    assert [len(title) for title in read_titles(DataFile(str(path)))["title"].to_pylist()] == [
        131_072
    ]
    path.write_text(f'movieId,title\n1,"a\n"\n2,"{"x" * (MAX_TITLE_LENGTH + 1)}"\n')
    message = (
        r"movies\.csv, row 4: titles must be at most 131,072 characters long, but this one is "
        r"131,073 long\. Correct or"
    )
    check_refused(lambda: read_titles(DataFile(str(path))), message)


@pytest.mark.parametrize(
    ("before", "place"),
    [
        (b"", "first rows"),
        (b"user,item\n", "first rows"),
        (ROWS * 100, r"byte [\d,]+"),
        (ROWS * 100 + b'1,2,3,"', "row 100001"),
    ],
)
def test_a_file_with_a_line_of_100_megabytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: bytes, place: str
) -> None:
    monkeypatch.setattr("recsys.data.readers.text.CHUNK_BYTES", MIB)
    (tmp_path / "data.csv").write_bytes(before + b"x" * (100 * MIB))
    check_refused(lambda: n_rows(tmp_path / "data.csv"), rf"data\.csv, {place}: {LONG_ROW}")


@pytest.mark.parametrize(
    "packed", [gzip.compress(ROWS), gzip.compress(ROWS[:5000]) + gzip.compress(ROWS[5000:])]
)
def test_limit_of_an_unpacked_gzip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packed: bytes
) -> None:
    (tmp_path / "data.csv.gz").write_bytes(packed)
    monkeypatch.setattr("recsys.data.sources.files.MAX_RATIO", 1)
    monkeypatch.setattr("recsys.data.sources.files.ALWAYS_ALLOWED_BYTES", len(ROWS))
    assert n_rows(tmp_path / "data.csv.gz") == 1000
    monkeypatch.setattr("recsys.data.sources.files.ALWAYS_ALLOWED_BYTES", len(ROWS) - 1)
    check_refused(
        lambda: n_rows(tmp_path / "data.csv.gz"),
        rf"data\.csv\.gz: must unpack to at most 1 times its size or {len(ROWS) - 1:,} bytes",
    )
    # A gzip file in a zip is unpacked twice.
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        archive.writestr("data.csv.gz", packed)
    check_refused(
        lambda: n_rows(tmp_path / "data.zip"),
        r"data\.zip/data\.csv\.gz: must unpack to at most 1 times its size",
    )


@pytest.mark.parametrize("name", ["data.zip", "data.csv.gz"])
def test_real_ratings_are_far_from_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    table, stream = pq.read_table(find_embedded() / "ratings.parquet"), io.BytesIO()
    pa_csv.write_csv(table, stream)
    ratings = stream.getvalue()
    (tmp_path / "data.csv.gz").write_bytes(gzip.compress(ratings))
    with zipfile.ZipFile(tmp_path / "data.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("ratings.csv", ratings)
    monkeypatch.setattr("recsys.data.sources.files.ALWAYS_ALLOWED_BYTES", 0)
    monkeypatch.setattr("recsys.data.sources.files.MAX_RATIO", 10)
    assert n_rows(tmp_path / name) == 100_004


def test_long_lines_of_candidates(tmp_path: Path) -> None:
    (tmp_path / "x.train.rating").write_text("0\t0\t1\t0\n1\t1\t1\t0\n")
    (tmp_path / "x.test.rating").write_text("0\t3\t1\t9\n")
    candidates = tmp_path / "x.test.negative"
    candidates.write_text("(0,3)\t" + "\t".join(map(str, range(4, 65_539))))
    assert n_rows(tmp_path) == 3 + 65_536
    candidates.write_text("(0,3)\t" + "\t".join(map(str, range(4, 65_540))))
    message = (
        r"x\.test\.negative, row 1: must have at most 65,535 candidates, but got 65,536\. Remove "
        r"some\."
    )
    check_refused(lambda: n_rows(tmp_path), message)
    candidates.write_bytes(gigabyte(b"(0,3)\t4\n(1,3)\t"))
    check_refused(lambda: n_rows(tmp_path), rf"x\.test\.negative, row 2: {LONG_ROW}")
