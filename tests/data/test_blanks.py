"""Blanks around ids belong to the ids, unless they pad a column of a text file."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.config.sections import DataConfig
from recsys.data.preprocessing.first_pass import merge, summarise
from recsys.data.readers.formats import list_fragments
from recsys.data.readers.ids import describe_blanks
from recsys.data.sources.layouts import find_source
from tests.data.conftest import Prepare

UNBROKEN = "c\u00a0"


def ids_of(path: Path) -> tuple[list[Any], list[Any], list[str]]:
    """Return the sorted users and items of a source, and the notes on their blanks."""
    fragments = list_fragments(find_source(DataConfig(source=str(path))), None)
    summary = merge(summarise(fragment, None) for fragment in fragments)
    users, items = summary.users[0], summary.items[0]
    return users.to_pylist(), items.to_pylist(), describe_blanks(fragments, users, items)


def of_text(
    tmp_path: Path, form: str, rows: list[tuple[object, object]]
) -> tuple[list[Any], list[Any], list[str]]:
    text = "user,item,time\n" + "".join(f"{form.format(user, item, 7)}\n" for user, item in rows)
    (tmp_path / "data.csv").write_text(text, encoding="utf-8")
    return ids_of(tmp_path / "data.csv")


@pytest.mark.parametrize("form", ["{},{},{}", '"{}","{}",{}'])
def test_text_ids_are_exact(tmp_path: Path, form: str) -> None:
    users, items, notes = of_text(
        tmp_path, form, [("x", 1), ("x ", "1 "), (" x", 2), (UNBROKEN, 10)]
    )
    assert users == [" x", UNBROKEN, "x", "x "]
    assert items == ["1", "1 ", "10", "2"]
    assert notes == [
        "blanks are part of user ids, as in ' x'",
        "blanks are part of item ids, as in '1 '",
    ]


@pytest.mark.parametrize(
    ("form", "columns"),
    [
        ("{}, {}, {}", ["item"]),
        ("{} , {} , {}", ["user", "item"]),
        ("{:>4},{:>4},{:>4}", ["user", "item"]),
        ("{:<4},{:<4},{:<4}", ["user", "item"]),
        ('"{:<4}","{:<4}",{}', ["user", "item"]),
        ("{}\t,{},{}", ["user"]),
    ],
)
def test_padding_is_left_out(tmp_path: Path, form: str, columns: list[str]) -> None:
    users, items, notes = of_text(tmp_path, form, [("a", 97), ("bc", 100), (UNBROKEN, 7)])
    assert (users, items) == (["a", "bc", UNBROKEN], [7, 97, 100])
    expected = [
        f"blanks around {column} in data.csv are padding and not part of the ids"
        for column in columns
    ]
    assert notes == [*expected, f"blanks are part of user ids, as in {UNBROKEN!r}"]


def test_padding_is_detected_in_more_than_the_first_rows(tmp_path: Path) -> None:
    # 60 rows look padded; a later one shows that 'x ' is an id of its own.
    users, _, _ = of_text(tmp_path, "{},{},{}", [*(("x ", item) for item in range(60)), ("x", 1)])
    assert users == ["x", "x "]


def test_categories_that_no_row_has_are_no_ids(tmp_path: Path) -> None:
    user = pa.DictionaryArray.from_arrays([2, 0], ["x", "ghost", "y"])
    item = pa.DictionaryArray.from_arrays([0, 1], [7, 8, 9])
    pq.write_table(pa.table({"user": user, "item": item}), tmp_path / "data.parquet")
    users, items, _ = ids_of(tmp_path / "data.parquet")
    assert (users, items) == (["x", "y"], [7, 8])


@pytest.mark.parametrize(
    "kind",
    [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())],
)
def test_parquet_ids_are_exact(tmp_path: Path, kind: Any) -> None:
    user, item = ["x", "x ", UNBROKEN, "7", "7 "], [" a", " b", " c", " d", " a"]
    pq.write_table(
        pa.table({"user": pa.array(user).cast(kind), "item": item}), tmp_path / "data.parquet"
    )
    users, items, notes = ids_of(tmp_path / "data.parquet")
    assert (users, items) == (["7", "7 ", UNBROKEN, "x", "x "], [" a", " b", " c", " d"])
    assert notes == [
        "blanks are part of user ids, as in '7 '",
        "blanks are part of item ids, as in ' a'",
    ]


def test_blank_ids_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"user": ["x", "\u00a0 "], "item": [1, 2]}), tmp_path / "data.parquet")
    with pytest.raises(
        ValueError, match=r"data\.parquet, row 2, column user: must be an id, but got"
    ):
        ids_of(tmp_path / "data.parquet")


def test_a_blank_in_a_pair_of_candidates(tmp_path: Path) -> None:
    (tmp_path / "x.train.rating").write_text("0\t0\t1\t0\n1\t1\t1\t0\n")
    (tmp_path / "x.test.rating").write_text("0\t3\t1\t9\n")
    (tmp_path / "x.test.negative").write_text("(0, 3)\t4\t5\n")
    assert ids_of(tmp_path) == ([0, 1], [0, 1, 3, 4, 5], [])


def test_the_manifest_has_the_notes(prepared: Prepare, tmp_path: Path) -> None:
    rows = [f"{user}, {user + step}, {step}" for user in range(4) for step in range(4)]
    (tmp_path / "data.csv").write_text("user,item,time\n" + "\n".join(rows) + "\n")
    assert prepared(tmp_path / "data.csv").manifest.notes == [
        "times are numbers of no known unit, 0 to 3",
        "blanks around item in data.csv are padding and not part of the ids",
    ]
