"""Rows of text equal those of Python's csv, for any quotes, fragments and chunks."""

import csv
import gzip
import io
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from recsys.config.sections import DataConfig
from recsys.data.readers.formats import list_fragments, read
from recsys.data.readers.titles import read_titles
from recsys.data.sources.files import DataFile
from recsys.data.sources.layouts import find_source

HEADER = ["user_id", "item_id", "review", "title"]
SIZES = (1, 2, 3, 5, 8, 13, 21, 34, 1000)

Row = tuple[str, str, str]


def read_rows(path: Path, n_bytes: int | None = None) -> list[Row]:
    """Return the users, items and titles of a file; `n_bytes`: of heads, fragments and chunks."""
    with pytest.MonkeyPatch.context() as patch:
        if n_bytes is not None:
            patch.setattr("recsys.data.readers.text.CHUNK_BYTES", n_bytes)
            patch.setattr("recsys.data.readers.text.DIALECT_BYTES", n_bytes)
        source = find_source(DataConfig(source=str(path)))
        batches = [
            batch for fragment in list_fragments(source, None) for batch in read(fragment, None)
        ]
    rows: list[Row] = []
    for batch in batches:
        assert batch.title is not None
        columns = (batch.user.to_pylist(), batch.item.to_pylist(), batch.title.to_pylist())
        rows += [(str(user), str(item), title) for user, item, title in zip(*columns, strict=True)]
    return rows


# A field as written in a file, in quotes or not: with quotes inside a field, doubled quotes, and
# text after a closing quote.
BARE = st.text(st.sampled_from('ab7" '), max_size=5).filter(lambda text: not text.startswith('"'))
QUOTED = st.tuples(
    st.text(st.sampled_from('a",\n\r;|\t'), max_size=6), st.text(st.sampled_from('b" '), max_size=3)
).map(lambda pair: '"' + pair[0].replace('"', '""') + '"' + pair[1].lstrip('"'))
ID = st.sampled_from(["u", "v", '"w"', "12", 'x"y'])
TEXT = BARE | QUOTED
LINE_END = st.sampled_from(["\n", "\r\n", "\n\n", "\r"])


@given(
    rows=st.lists(st.tuples(ID, ID, TEXT, TEXT), min_size=1, max_size=8),
    separator=st.sampled_from([",", "\t", ";", "|"]),
    line_end=LINE_END,
    last_line_end=st.booleans(),
    size=st.sampled_from(SIZES),
    packed=st.booleans(),
)
@example([("u", "i", '7" single', "t"), ("v", "i", '"a\nb"', "t")], ",", "\n", True, 5, True)
@example([("u", "i", '"a""\nb"c"', "t"), ("v", "i", '""', '"\n"')], ",", "\n", False, 5, False)
def test_rows_are_those_of_csv(
    rows: list[tuple[str, str, str, str]],
    separator: str,
    line_end: str,
    last_line_end: bool,
    size: int,
    packed: bool,
) -> None:
    lines = [
        separator.join(field.replace(",", separator) for field in row)
        for row in [tuple(HEADER), *rows]
    ]
    text = line_end.join(lines) + line_end * last_line_end
    expected = [
        row for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator) if row
    ][1:]
    assert {len(row) for row in expected} == {len(HEADER)}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ("r.csv.gz" if packed else "r.csv")
        path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
        assert read_rows(path, size) == [(user, item, title) for user, item, _, title in expected]


@given(text=st.text(st.sampled_from('a1",\n'), max_size=30), size=st.sampled_from(SIZES))
@example('1,2,3,"', 1000)
@example('1,2,"\n1,2,3,4', 3)
def test_any_text_is_read_as_by_csv_or_refused(text: str, size: int) -> None:
    text = f"{','.join(HEADER)}\nu,i,r,t\n{text}\n"
    *rows, last = [row for row in csv.reader(io.StringIO(text + "the,end,x,y", newline="")) if row][
        1:
    ]
    closed = last == ["the", "end", "x", "y"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "r.csv"
        path.write_text(text)
        # Padding may be removed from ids: compare them without blanks.
        if closed and all(
            len(row) == len(HEADER) and row[0].strip() and row[1].strip() for row in rows
        ):
            found = [
                (user.strip(), item.strip(), title) for user, item, title in read_rows(path, size)
            ]
            assert found == [(user.strip(), item.strip(), title) for user, item, _, title in rows]
        else:
            with pytest.raises(ValueError, match=r"must (have 4 fields|be an id|close its quote)"):
                read_rows(path, size)


@given(
    rows=st.lists(st.tuples(ID, TEXT, TEXT), min_size=1, max_size=8),
    line_end=LINE_END,
    size=st.sampled_from(SIZES),
    mark=st.sampled_from(["", "\ufeff"]),
)
def test_titles_are_those_of_csv(
    rows: list[tuple[str, str, str]], line_end: str, size: int, mark: str
) -> None:
    text = line_end.join(",".join(row) for row in [("movieId", "title", "genres"), *rows])
    found = [row for row in csv.reader(io.StringIO(text, newline="")) if row][1:]
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr("recsys.data.readers.titles.CHUNK_BYTES", size)
        (Path(folder) / "movies.csv").write_bytes((mark + text).encode())
        titles = read_titles(DataFile(str(Path(folder) / "movies.csv")))
    ids = [str(item) for item in titles["item"].to_pylist()]
    assert dict(zip(ids, titles["title"].to_pylist(), strict=True)) == {
        item: title for item, title, _ in found
    }


@pytest.mark.parametrize(("name", "separator"), [("movies.dat", "::"), ("u.item", "|")])
def test_quotes_are_ordinary_in_titles_without_a_header(
    tmp_path: Path, name: str, separator: str
) -> None:
    # 0x85, an ellipsis in another encoding, is a line end for Python's `splitlines`, but not here.
    lines = ['1::"M" (1931)::x', "2::7 \x85 8::y", '3::"open::z', "4", "", "5::last"]
    (tmp_path / name).write_bytes("\n".join(lines).replace("::", separator).encode("latin-1"))
    titles = read_titles(DataFile(str(tmp_path / name)))
    assert titles.to_pydict() == {
        "item": [1, 2, 3, 5],
        "title": ['"M" (1931)', "7 \x85 8", '"open', "last"],
    }


def test_a_quote_long_after_the_head(tmp_path: Path) -> None:
    # The first quote is in the last of some hundred fragments. The text after it looks like rows of
    # another user.
    lines = [f"{row % 40},{row % 30},{'x' * 20},t" for row in range(2000)]
    lines[1900] = '1,2,"' + "\n777777,888888,r,t" * 500 + '",t'
    (tmp_path / "data.csv").write_text("\n".join([",".join(HEADER), *lines]))
    rows = read_rows(tmp_path / "data.csv", 1000)
    assert len(rows) == 2000
    assert {user for user, _, _ in rows} == {str(user) for user in range(40)}


def test_text_without_quotes_is_read_in_fragments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recsys.data.readers.text.CHUNK_BYTES", 1000)
    rows = [(user, user + 1) for user in range(500)]
    for name, head, separator, note, in_fragments in (
        ("quoted_header.csv", '"user","item","note"\n', ",", "x", True),
        ("colons.dat", "", "::", '5::7::7" single', True),
        ("quoted.csv", "user,item,note\n", ",", '"x"', False),
    ):
        text = head + "".join(f"{user}{separator}{item}{separator}{note}\n" for user, item in rows)
        (tmp_path / name).write_text(text)
        fragments = list_fragments(find_source(DataConfig(source=str(tmp_path / name))), None)
        assert (len(fragments) > 1) == in_fragments
        batches = [batch for fragment in fragments for batch in read(fragment, None)]
        found = [
            pair
            for batch in batches
            for pair in zip(batch.user.to_pylist(), batch.item.to_pylist(), strict=True)
        ]
        assert found == rows


def test_the_head_has_a_whole_row(tmp_path: Path) -> None:
    # The first row is longer than the first head, and its lines look like rows of another dialect.
    review = '"' + "a;b\n" * 100 + '"'
    (tmp_path / "data.csv").write_text(f"{','.join(HEADER)}\n1,2,{review},t\n3,4,r,t\n")
    assert read_rows(tmp_path / "data.csv", 64) == [("1", "2", "t"), ("3", "4", "t")]


def test_long_fields_are_accepted(tmp_path: Path) -> None:
    # Python's csv has a limit of 131,072 characters by default; Arrow has none.
    (tmp_path / "data.csv").write_text(f"{','.join(HEADER)}\n1,2,{'x' * 200_000},t\n3,4,r,t\n")
    assert read_rows(tmp_path / "data.csv") == [("1", "2", "t"), ("3", "4", "t")]
    (tmp_path / "data.csv").write_text(f"{','.join(HEADER)}\n1,2,{'x' * 200_000},t\n3,,r,t\n")
    with pytest.raises(
        ValueError, match=r"data\.csv, row 3, column item_id: must be an id, but is empty"
    ):
        read_rows(tmp_path / "data.csv")


def test_an_unclosed_quote(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text(f'{",".join(HEADER)}\n1,2,r,t\n3,4,r,"7 single\n5,6,r,t\n')
    message = (
        r"data\.csv, row 3: must close its quote, but the file ends within it\. Look for a stray "
        r"quote\."
    )
    for size in (1, 10, 1000):
        with pytest.raises(ValueError, match=message):
            read_rows(tmp_path / "data.csv", size)


def test_a_stray_quote_costs_no_more_than_none(tmp_path: Path) -> None:
    # At a quadratic cost this would take many minutes.
    path = tmp_path / "data.csv"
    titles = ('7" single' if row == 0 else "Title of an item" for row in range(400_000))
    path.write_text(
        "user,item,title\n"
        + "".join(f"{row % 997},{row % 1499},{title}\n" for row, title in enumerate(titles))
    )
    code = (
        "from recsys.config.sections import DataConfig\n"
        "from recsys.data.sources.layouts import find_source\n"
        "from recsys.data.readers.formats import list_fragments, read\n"
        f"fragments = list_fragments(find_source(DataConfig(source={str(path)!r})), None)\n"
        "print(sum(len(batch.order) for fragment in fragments for batch in read(fragment, None)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout == "400000\n"
