"""Readers on generated files: rows are read as written, and any other file gives one line of error.

`make fuzz` runs this file with many more examples.
"""

import gzip
import io
import re
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.config.sections import ColumnsConfig, DataConfig
from recsys.data.preprocessing.first_pass import merge, summarise
from recsys.data.readers.formats import list_fragments, read
from recsys.data.readers.fragments import Batch
from recsys.data.readers.titles import read_titles
from recsys.data.sources.layouts import find_source
from recsys.errors import InputError

THRESHOLD = 4.0
ERROR = re.compile(r"[^\n]+?: [^\n]*\b(must|needs)\b[^\n]*,? but [^\n]+\. [A-Z][^\n]+\.")

# Ids that a file of lines can hold: not blank, without control characters such as line ends, and
# without blanks that look like padding.
TEXT_ID = (
    st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), min_size=1, max_size=8)
    .map(lambda text: text.strip(" "))
    .filter(str.strip)
)
# Ids without quotes, separators and header names.
PLAIN_ID = (
    st.text("xyzäЖ字007-_. ", min_size=1, max_size=8)
    .map(lambda text: text.strip(" "))
    .filter(str.strip)
)
INTEGER_ID = st.integers(-(2**63), 2**63 - 1)


def frames(ids: st.SearchStrategy[Any]) -> st.SearchStrategy[pd.DataFrame]:
    rating, timestamp = st.floats(-1e6, 1e6), st.integers(0, 2**40)
    rows = st.lists(st.tuples(ids, ids, rating, timestamp), min_size=1, max_size=30)
    return rows.map(
        lambda found: pd.DataFrame(found, columns=["user", "item", "rating", "timestamp"])
    )


def write_dat(frame: pd.DataFrame, path: Path) -> None:
    lines = ("::".join(map(str, row)) for row in frame.itertuples(index=False, name=None))
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def write_zip(frame: pd.DataFrame, path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("ml/ratings.csv", frame.to_csv(index=False))


WRITERS: dict[str, Callable[[pd.DataFrame, Path], Any]] = {
    "r.csv": lambda frame, path: frame.to_csv(path, index=False),
    "r.tsv": lambda frame, path: frame.to_csv(path, index=False, sep="\t"),
    "r.csv.gz": lambda frame, path: frame.to_csv(path, index=False),
    "r.dat": write_dat,
    "r.parquet": lambda frame, path: frame.to_parquet(path, index=False),
    "r.zip": write_zip,
}


def batches_of(path: Path, columns: ColumnsConfig | None = None) -> list[Batch]:
    source = find_source(DataConfig(source=str(path)))
    return [
        batch for fragment in list_fragments(source, columns) for batch in read(fragment, THRESHOLD)
    ]


@pytest.mark.parametrize("name", WRITERS)
@given(data=st.data())
def test_rows_are_read_as_written(name: str, data: st.DataObject) -> None:
    frame = data.draw(
        frames(st.just(0) | INTEGER_ID) | frames(PLAIN_ID if name == "r.dat" else TEXT_ID)
    )
    with tempfile.TemporaryDirectory() as folder:
        WRITERS[name](frame, Path(folder) / name)
        batches = batches_of(Path(folder) / name)
    for column in ("user", "item"):
        read_back = [
            str(value) for batch in batches for value in getattr(batch, column).to_pylist()
        ]
        assert read_back == [str(value) for value in frame[column]]
    assert [value for batch in batches for value in batch.positive] == list(
        frame["rating"] >= THRESHOLD
    )
    assert (
        max(batch.rating_max for batch in batches if batch.rating_max is not None)
        == frame["rating"].max()
    )
    assert [value for batch in batches if batch.time for value in batch.time.whole] == list(
        frame["timestamp"]
    )


def check_only_input_errors(read_it: Callable[[], object]) -> None:
    """Check that a call returns, or raises an `InputError` of one line."""
    message = None
    try:
        read_it()
    except (ValueError, OSError) as error:
        if not isinstance(error, InputError):
            raise
        message = str(error)
    assert message is None or ERROR.fullmatch(message)


def scan(path: Path) -> None:
    """Make the first pass over a source, as the pipeline does."""
    source = find_source(DataConfig(source=str(path)))
    merge(summarise(fragment, THRESHOLD) for fragment in list_fragments(source, None))
    if source.titles is not None:
        read_titles(source.titles)


def packed(name: str, content: bytes) -> bytes:
    """Return a zip with one member."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return stream.getvalue()


def parquet_of(frame: pd.DataFrame) -> bytes:
    stream = io.BytesIO()
    frame.to_parquet(stream, index=False)
    return stream.getvalue()


SMALL = pd.DataFrame(
    {
        "user": [1, 2, 3],
        "item": ["a", "b", "a"],
        "rating": [5.0, 3.0, 4.5],
        "time": [1, 2, 3],
        "title": list("xyz"),
    }
)
CSV = SMALL.to_csv(index=False).encode()
GOOD = [
    *(
        CSV,
        b"1::10::5::978300760\n2::20::3::978300761\n",
        b"1\t10\t5\t881250949\n2\t20\t3\t881250950\n",
    ),
    *(
        b"user,item,date\n1,1,2020-01-01\n1,2,2020-02-28T10:00:00Z\n",
        b'user;item\n"a;b";1\n"c\nd";2\n',
    ),
    *(
        gzip.compress(CSV),
        packed("ratings.csv", CSV),
        packed("a/u.data", b"1\t10\t5\t881250949\n"),
        parquet_of(SMALL),
    ),
]
NAMES = (
    "data.csv",
    "u.data",
    "ratings.dat",
    "ratings.csv",
    "data.zip",
    "data.parquet",
    "ratings.parquet",
    "data.csv.gz",
)
TOKEN = st.sampled_from(
    [
        *(
            b",",
            b"\t",
            b"::",
            b";",
            b"|",
            b"\n",
            b"\r\n",
            b"\r",
            b'"',
            b" ",
            b"\0",
            b"\xef\xbb\xbf",
            b"\xff",
            b"user",
            b"item",
        ),
        *(
            b"rating",
            b"time",
            b"1",
            b"-1",
            b"5.0",
            b"1e999",
            b"nan",
            b"2020-01-01",
            b"\xc3\xa9",
            b"\x1f",
            b"\xe2\x80\xa8",
            b"#",
        ),
    ]
)
MEMBERS = st.sampled_from(
    [
        "ratings.csv",
        "movies.csv",
        "u.data",
        "u.item",
        "x.parquet",
        "a/b.csv",
        "../a.csv",
        "/a.csv",
        "C:\\a",
        ".",
    ]
)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """Draw a good file in which some bytes are changed, removed or added."""
    content = bytearray(draw(st.sampled_from(GOOD)))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(len(content) - 1, 0)))
        length = draw(st.integers(0, 3) | st.integers(0, len(content)))
        content[place : place + length] = draw(st.binary(max_size=4) | TOKEN)
    return bytes(content)


LIKE_TEXT = st.lists(TOKEN, max_size=60).map(b"".join)
CONTENT = st.binary(max_size=200) | LIKE_TEXT | mutated()


@given(name=st.sampled_from(NAMES), content=CONTENT, movies=st.none() | CONTENT)
def test_any_file_is_data_or_an_input_error(
    name: str, content: bytes, movies: bytes | None
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / name).write_bytes(content)
        if movies is not None:
            for beside in ("u.item", "movies.dat", "movies.csv", "movies.parquet"):
                (Path(folder) / beside).write_bytes(movies)
        check_only_input_errors(lambda: scan(Path(folder) / name))


@given(members=st.dictionaries(MEMBERS, CONTENT, max_size=3))
def test_any_zip_is_data_or_an_input_error(members: dict[str, bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(Path(folder) / "data.zip", "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        check_only_input_errors(lambda: scan(Path(folder) / "data.zip"))
        assert [path.name for path in Path(folder).iterdir()] == ["data.zip"]


@given(
    train=CONTENT,
    test=CONTENT,
    negative=CONTENT | st.lists(st.sampled_from([b"(1,10)", b"\t", b"3", b"\n"])).map(b"".join),
)
def test_any_ncf_folder_is_data_or_an_input_error(
    train: bytes, test: bytes, negative: bytes
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for suffix, content in (
            ("train.rating", train),
            ("test.rating", test),
            ("test.negative", negative),
        ):
            (Path(folder) / f"x.{suffix}").write_bytes(content)
        check_only_input_errors(lambda: scan(Path(folder)))


SCALAR = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=4)
    | st.binary(max_size=3)
)
VALUE = (
    SCALAR
    | st.dates()
    | st.datetimes()
    | st.lists(st.integers(0, 9), max_size=2)
    | st.decimals(allow_nan=False, places=2)
)


@given(
    data=st.data(),
    n=st.integers(1, 5),
    names=st.sets(st.sampled_from(["rating", "timestamp", "title", "name"])),
)
def test_any_parquet_is_data_or_an_input_error(
    data: st.DataObject, n: int, names: set[str]
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {}
    for name in ("user", "item", *sorted(names)):
        kind = data.draw(
            st.sampled_from([st.integers(0, 9), st.floats(), st.text(max_size=2), VALUE])
        )
        values = data.draw(st.lists(kind, min_size=n, max_size=n))
        try:
            columns[name] = pa.array(values)
        except (pa.ArrowException, OverflowError, TypeError, ValueError):
            columns[name] = pa.array([None if value is None else str(value) for value in values])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.parquet"
        pq.write_table(pa.table(columns), path)
        check_only_input_errors(lambda: scan(path))
