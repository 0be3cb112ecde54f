"""Each mistake in the data gives one line with the place, the rule, the value and the remedy."""

import gzip
import os
import re
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.config.sections import DataConfig, FilesConfig
from recsys.data.readers.formats import list_fragments, read
from recsys.data.sources.files import DataFile, open_file
from recsys.data.sources.layouts import find_source
from recsys.errors import InputError
from tests.data.conftest import Prepare

GOOD = "user,item,rating,timestamp\n" + "".join(
    f"{u},{i},5,{10 * u + i}\n" for u in range(1, 4) for i in range(u, u + 4)
)

TEXTS = {
    "empty": ("", "data.csv: must hold interactions, but the file is empty."),
    "blank": ("\n\n", "data.csv: must hold interactions, but is empty."),
    "header alone": ("user,item\n", "data.csv: must hold interactions, but has a header alone."),
    "binary": ("a\0b\1\2", "data.csv: must be CSV, TSV, gzip, zip or Parquet, but it is binary."),
    "one column": (
        "abc\ndef\n",
        "data.csv: must have a user and an item column, but has 1 column.",
    ),
    "no item column": (
        "user,rating\n1,5\n",
        "data.csv: must have a column with the item ids, but the columns are user, rating. Name "
        "it with data.columns.item.",
    ),
    "unknown header": (
        "who,what,how\n1,2,5\n3,4,5\n",
        "data.csv: must have a column with the user ids, but the columns are who, what, how.",
    ),
    "text for a rating": (
        GOOD + "1,9,abc,3\n",
        "data.csv, row 14, column rating: must be a number, but got 'abc'. Correct or remove the "
        "row.",
    ),
    "text for a time": (
        GOOD + "1,9,5,then\n",
        "data.csv, row 14, column timestamp: must be a number within 64 bits or an ISO date, but "
        "got 'then'.",
    ),
    "another kind of time": (
        "user,item,date\n1,1,2020-01-01\n1,2,2020-02-30\n",
        "data.csv, row 3, column date: must be an ISO date like the others, but got '2020-02-30'.",
    ),
    "missing rating": (
        GOOD + "1,9,,3\n",
        "data.csv, row 14, column rating: must be a number, but got ''.",
    ),
    "NaN rating": (
        GOOD + "1,9,NaN,3\n",
        "data.csv, row 14, column rating: must be a number, but got 'NaN'.",
    ),
    "infinite rating": (
        GOOD + "1,9,inf,3\n",
        "data.csv, row 14, column rating: must be a number, but got 'inf'.",
    ),
    "huge rating": (
        GOOD + "1,9,1e999,3\n",
        "data.csv, row 14, column rating: must be a number, but got '1e999'.",
    ),
    "missing user": (
        GOOD + ",9,5,3\n",
        "data.csv, row 14, column user: must be an id, but is empty.",
    ),
    "missing item": (
        GOOD + "1, ,5,3\n",
        "data.csv, row 14, column item: must be an id, but is empty.",
    ),
    "too few fields": (GOOD + "1,9,5\n", "data.csv, row 14: must have 4 fields, but got 3."),
    "too many fields": (GOOD + "1,9,5,3,7\n", "data.csv, row 14: must have 4 fields, but got 5."),
    "blank lines count": (
        "user,item\n\n1,1\n\n,2\n",
        "data.csv, row 5, column user: must be an id, but is empty.",
    ),
    "quoted line end": (
        'user,item\n"a\nb",1\n,2\n',
        "data.csv, row 4, column user: must be an id, but is empty.",
    ),
    "double colons": (
        "1::2::5::9\n1::3::x::9\n",
        "data.csv, row 2, column rating: must be a number, but got 'x'. "
        "Correct or remove the row, or set the columns with data.columns.",
    ),
    "one user": ("user,item,timestamp\n1,1,1\n1,2,2\n", "must hold at least 2 users, but got 1."),
    "no positive": (
        "user,item,rating\n1,1,3\n2,2,3.5\n",
        "data.positive_threshold: must be at most the largest rating, 3.5, but got 4. Lower it",
    ),
    "no times": ("user,item\n1,1\n2,2\n", "data.split: leave_one_out needs times, but"),
    "equal times": (
        "user,item,timestamp\n1,1,7\n2,2,7\n",
        "all its times are equal. Name the column with data.columns.timestamp",
    ),
    "no validation": (
        "1,1,5,1\n1,2,5,2\n2,3,5,1\n",
        "must have a positive in validation, but there is none. It takes a user with 3 positives.",
    ),
    "all items": (
        "".join(f"{user},{item},5,{item}\n" for user in "ab" for item in range(1, 5)) + "c,1,5,1\n",
        "each user must have an item left to draw as a negative, but 2 users (a, b) interacted "
        "with all 4 items. Remove them.",
    ),
}


@pytest.mark.parametrize("case", TEXTS)
def test_text_files(prepared: Prepare, tmp_path: Path, case: str) -> None:
    text, message = TEXTS[case]
    (tmp_path / "data.csv").write_text(text)
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        prepared(tmp_path / "data.csv")
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, InputError)
    assert not any((tmp_path / "experiments" / "processed").glob("*/manifest.json"))


JSON = {
    "two fields": '{"user_id": 0, "item_id": 3}\n{"user_id": 1, "item_id": 6}\n',
    "one field": '{"pair": "0-3"}\n{"pair": "1-6"}\n',
    "four fields": '\n{ "user": "a", "item": 3, "rating": 5, "time": 1 }\n' * 100,
    "nested": '{"user": {"id": 0}, "items": [3, 6]}\r\n',
    "one object over lines": '{\n  "user": 0,\n  "item": 3\n}\n',
    "array of objects": '[{"user": 0, "item": 3},{"user": 1, "item": 6}]',
    "array over lines": '[\n  {"user": 0, "item": 3},\n  {"user": 1, "item": 6}\n]\n',
    "array longer than the head": "[" + ",".join(f"[{row},{row}]" for row in range(50_000)) + "]",
    "arrays of numbers": "[0, 3, 5]\n[1, 6, 5]\n",
    "arrays of strings": '["a", "x"]\n["b", "y"]\n',
    "with a byte order mark": '\ufeff{"user_id": 0, "item_id": 3}\n',
    "of Python": "{'user': 0, 'item': 3}\n{u'user': 1, u'item': 6}\n",
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("case", JSON)
def test_json_is_refused(tmp_path: Path, case: str, packed: bool) -> None:
    content = JSON[case].encode()
    (tmp_path / "data.json").write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(
        ValueError,
        match=r"data\.json: must be CSV, TSV or Parquet, but is JSON\. Convert it to one of them\.",
    ):
        list_fragments(find_source(DataConfig(source=str(tmp_path / "data.json"))), None)


@pytest.mark.parametrize(
    ("text", "users"),
    [
        ("[user],[item]\n1,5\n2,6\n", [1, 2]),
        ("{3F25-04E0},5\n{A91C-77B2},6\n", ["{3F25-04E0}", "{A91C-77B2}"]),
        ("[1],5\n[2],6\n", ["[1]", "[2]"]),
        ("user,item\n{,5\n[,6\n", ["{", "["]),
    ],
)
def test_brackets_alone_are_not_json(tmp_path: Path, text: str, users: list[object]) -> None:
    (tmp_path / "data.csv").write_text(text)
    fragments = list_fragments(find_source(DataConfig(source=str(tmp_path / "data.csv"))), None)
    assert [
        user
        for fragment in fragments
        for batch in read(fragment, None)
        for user in batch.user.to_pylist()
    ] == users


def test_row_numbers_deep_in_a_big_file(
    prepared: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Fragments have 1,000 bytes. The bad row is in a late one, whose first line number is counted
    # only for the error message.
    monkeypatch.setattr("recsys.data.readers.text.CHUNK_BYTES", 1000)
    lines = [f"{row % 50},{row},5,{row}" for row in range(2000)]
    lines[1700] = "7,1700,five,1700"
    lines[1900] = "7,1900,six,1900"
    (tmp_path / "data.csv").write_text("user,item,rating,time\n" + "\n".join(lines))
    with pytest.raises(
        ValueError, match=r"data\.csv, row 1702, column rating: must be a number, but got 'five'"
    ):
        prepared(tmp_path / "data.csv")


def test_latin_1_ids(prepared: Prepare, tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_bytes(b"user,item\na,1\nb\xe9,2\n")
    with pytest.raises(
        ValueError,
        match=r"data\.csv, row 3, column user: must be UTF-8, but got .*Save the file as UTF-8",
    ):
        prepared(tmp_path / "data.csv")


def test_an_unknown_path_suggests_a_similar_one(prepared: Prepare, tmp_path: Path) -> None:
    (tmp_path / "ratings.csv").write_text(GOOD)
    with pytest.raises(
        InputError, match=r"but got '.*rating\.csv'\. Did you mean .*ratings\.csv\?"
    ):
        prepared(tmp_path / "rating.csv")
    with pytest.raises(InputError, match=r"but got 'ml-1mm'\. Did you mean ml-1m\?"):
        prepared("ml-1mm")
    with pytest.raises(
        InputError,
        match=r"but got 'nothing/like/it'\. Check the path, or choose one of ml-100k, ml-10m",
    ):
        prepared("nothing/like/it")
    files = {"train": str(tmp_path / "ratings.csv"), "test": str(tmp_path / "x.csv")}
    with pytest.raises(InputError, match=r"data\.files\.test: must be a path that exists"):
        prepared(None, {"data.files": files})


def test_a_given_file_with_a_split_of_its_own(tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / f"x.{split}.rating").write_text("1\t2\t5\t0\n")
    files = FilesConfig(train=str(tmp_path), test=str(tmp_path / "x.test.rating"))
    message = (
        f"data.files.train: must hold one split, but {tmp_path} holds train and test. "
        "Pass it as data.source."
    )
    with pytest.raises(InputError, match=re.escape(message)):
        find_source(DataConfig(files=files))


def test_unreadable_file(
    prepared: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "data.csv"
    path.write_text(GOOD)
    path.chmod(0)
    if os.access(path, os.R_OK):  # root may read every file: refuse in its place
        monkeypatch.setattr(
            Path, "open", lambda *_: (_ for _ in ()).throw(PermissionError(13, "Permission denied"))
        )
    with pytest.raises(
        InputError,
        match=r"data\.csv: must be readable, but permission is denied\. Change its permissions\.",
    ):
        prepared(path)


def test_cut_off_archives(prepared: Prepare, tmp_path: Path) -> None:
    text = "user,item\n" + "".join(f"{number},{number * 7919}\n" for number in range(100_000))
    whole = gzip.compress(text.encode())
    (tmp_path / "data.csv.gz").write_bytes(whole[: len(whole) - 1000])
    with pytest.raises(
        ValueError, match=r"data\.csv\.gz: must be a whole gzip file, but it is cut off or damaged"
    ):
        prepared(tmp_path / "data.csv.gz")
    with zipfile.ZipFile(tmp_path / "data.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("ratings.csv", text)
    whole = (tmp_path / "data.zip").read_bytes()
    (tmp_path / "data.zip").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        ValueError, match=r"data\.zip: must be a whole zip file, but it is cut off or damaged"
    ):
        prepared(tmp_path / "data.zip")
    (tmp_path / "data.zip").write_bytes(whole[:5000] + bytes(1000) + whole[6000:])
    with pytest.raises(
        ValueError,
        match=r"data\.zip/ratings\.csv: must be a whole zip file, but it is cut off or damaged",
    ):
        prepared(tmp_path / "data.zip")


def test_cut_off_parquet(prepared: Prepare, tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    pq.write_table(pa.table({"user": np.arange(1000), "item": np.arange(1000)}), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        ValueError,
        match=r"data\.parquet: must be a whole Parquet file, but it is cut off or damaged",
    ):
        prepared(path)


def test_members_outside_of_the_archive(prepared: Prepare, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        archive.writestr("ratings.csv", GOOD)
        archive.writestr("../../escaped.csv", GOOD)
    with pytest.raises(
        ValueError,
        match=r"data\.zip: members must be inside the archive, but got '\.\./\.\./escaped\.csv'",
    ):
        prepared(tmp_path / "data.zip")
    assert not (tmp_path.parent.parent / "escaped.csv").exists()


def test_folder_without_data(prepared: Prepare, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(ValueError, match=r"folder: must hold u\.data, .* but holds nothing"):
        prepared(folder)
    (folder / "a.csv").write_text(GOOD)
    (folder / "b.csv").write_text(GOOD)
    with pytest.raises(
        ValueError, match=r"but holds a\.csv, b\.csv\. Pass the file with the interactions"
    ):
        prepared(folder)


PARQUETS = {
    "missing rating": (
        {"user": [1, 2], "item": [1, 2], "rating": [5.0, None]},
        "data.parquet, row 2, column rating: must be a finite number, but is missing.",
    ),
    "NaN rating": (
        {"user": [1, 2], "item": [1, 2], "rating": [5.0, float("nan")]},
        "data.parquet, row 2, column rating: must be a finite number, but got nan.",
    ),
    "text rating": (
        {"user": [1, 2], "item": [1, 2], "rating": ["5", "five"]},
        "data.parquet, row 2, column rating: must be a finite number, but got 'five'.",
    ),
    "missing user": (
        {"user": [1, None], "item": [1, 2]},
        "data.parquet, row 2, column user: must be an id, but is missing.",
    ),
    "fractional item": (
        {"user": [1, 2], "item": [1.0, 2.5]},
        "data.parquet, row 2, column item: must be an integer or text, but got 2.5.",
    ),
    "empty text id": (
        {"user": ["a", ""], "item": [1, 2]},
        "data.parquet, row 2, column user: must be an id, but got ''.",
    ),
    "lists for ids": (
        {"user": [[1], [2]], "item": [1, 2]},
        "data.parquet, row 1, column user: must hold integers or text, but holds list",
    ),
    "text time": (
        {"user": [1, 2], "item": [1, 2], "time": ["2020-01-01", "yesterday"]},
        "data.parquet, row 2, column time: must be a number within 64 bits or a date, but got "
        "'yesterday'.",
    ),
    "no user column": (
        {"a": [1], "item": [1]},
        "data.parquet: must have a column with the user ids, but the columns are a, item.",
    ),
    "no row": (
        {"user": pa.array([], pa.int64()), "item": pa.array([], pa.int64())},
        "must hold interactions, but has no row",
    ),
}


@pytest.mark.parametrize("case", PARQUETS)
def test_parquet_files(prepared: Prepare, tmp_path: Path, case: str) -> None:
    columns, message = PARQUETS[case]
    pq.write_table(pa.table(columns), tmp_path / "data.parquet")
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        prepared(tmp_path / "data.parquet")
    assert isinstance(caught.value, InputError)


def test_parquet_without_a_row_group(prepared: Prepare, tmp_path: Path) -> None:
    with pq.ParquetWriter(
        tmp_path / "data.parquet", pa.schema({"user": pa.int64(), "item": pa.int64()})
    ):
        pass
    with pytest.raises(ValueError, match=r"data\.parquet: must hold interactions, but has no row"):
        prepared(tmp_path / "data.parquet")


def test_parquet_rows_are_counted_across_row_groups(
    prepared: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recsys.data.readers.parquet.FRAGMENT_ROWS", 100)
    rating = np.full(1000, 5.0)
    rating[777] = np.inf
    table = pa.table({"user": np.arange(1000), "item": np.arange(1000), "rating": rating})
    pq.write_table(table, tmp_path / "data.parquet", row_group_size=50)
    with pytest.raises(
        ValueError,
        match=r"data\.parquet, row 778, column rating: must be a finite number, but got inf",
    ):
        prepared(tmp_path / "data.parquet")


def test_unknown_columns(prepared: Prepare, tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text(GOOD)
    with pytest.raises(
        ValueError,
        match=r"data\.columns\.user: must name a column of data\.csv, but got 'who'\. The columns "
        r"are user, ",
    ):
        prepared(path, {"data.columns": {"user": "who"}})
    with pytest.raises(
        ValueError,
        match=r"data\.columns\.item: must be a position from 0 to 3 in data\.csv, but got 4",
    ):
        prepared(path, {"data.columns": {"item": 4}})


def test_an_empty_core(prepared: Prepare, tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text(GOOD)
    message = (
        "must leave at least 2 users and 1 item, but 5 and 1 leave 0 users and 0 items. Lower them."
    )
    with pytest.raises(ValueError, match=message):
        prepared(tmp_path / "data.csv", {"data.min_user_interactions": 5})


def test_more_candidates_than_unseen_items(prepared: Prepare, tmp_path: Path) -> None:
    # There are 6 items, and each user has interacted with 4.
    (tmp_path / "data.csv").write_text(GOOD)
    sampled = {"evaluation.protocol": "sampled", "evaluation.n_candidates": 3}
    message = (
        r"evaluation\.n_candidates: must be at most the unseen items .* but 3 users \(1, 2, 3\) "
        r"have fewer than 3\. Lower it"
    )
    with pytest.raises(ValueError, match=message):
        prepared(tmp_path / "data.csv", sampled)
    assert (
        prepared(tmp_path / "data.csv", {**sampled, "evaluation.n_candidates": 2}).manifest.n_test
        == 3
    )


def test_k_above_the_number_of_items(prepared: Prepare, tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text(GOOD)
    with pytest.raises(
        ValueError,
        match=r"evaluation\.k: must be at most the number of items, 6, but got 7\. Lower it",
    ):
        prepared(tmp_path / "data.csv", {"evaluation.k": 7})


def test_temporal_split_of_two_times(prepared: Prepare, tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("1,1,5,1\n1,2,5,2\n2,2,5,1\n2,3,5,2\n")
    with pytest.raises(
        ValueError, match=r"data\.split: temporal needs at least 3 different times, but got 2"
    ):
        prepared(tmp_path / "data.csv", {"data.split": "temporal"})


def test_random_split_needs_no_times(prepared: Prepare, tmp_path: Path) -> None:
    text = "".join(f"{user},{(user * 7 + step) % 40}\n" for user in range(30) for step in range(10))
    (tmp_path / "data.csv").write_text(text)
    manifest = prepared(tmp_path / "data.csv", {"data.split": "random"}).manifest
    assert manifest.n_train + manifest.n_validation + manifest.n_test == 300


@pytest.mark.parametrize("packed", [False, True])
def test_an_error_of_the_operating_system_is_no_damage(packed: bool, tmp_path: Path) -> None:
    path = tmp_path / "ratings.csv"
    path.write_bytes(gzip.compress(b"1,2\n") if packed else b"1,2\n")
    with (
        pytest.raises(FileNotFoundError, match="elsewhere"),
        open_file(DataFile(str(path))),
    ):
        (tmp_path / "elsewhere").open("rb")
