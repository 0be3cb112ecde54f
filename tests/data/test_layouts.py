"""Every layout gives the same interactions."""

import gzip
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.config.sections import DataConfig
from recsys.data.processed import Processed, all_pairs, item_ids, item_titles, load, user_ids
from recsys.data.readers.formats import list_fragments, read
from recsys.data.sources.layouts import find_source
from recsys.data.splits import HeldOutSplit
from tests.data.conftest import Prepare

# Three users, five items; 3.5 is a low rating. By time, each user's last positive is 30, 50, 40,
# and the one before 20, 40, 10.
ROWS = [
    (1, 10, 5.0, 100), (1, 20, 4.0, 200), (1, 30, 4.5, 300), (1, 40, 3.5, 400),
    (2, 50, 4.0, 900), (2, 40, 5.0, 800), (2, 30, 5.0, 700),
    (3, 40, 4.0, 330), (3, 10, 4.0, 320), (3, 20, 5.0, 310),
]  # fmt: skip
TITLES = {10: "Été", 20: "Heat (1995)", 30: "A, B: C", 50: "Q"}


def lines(form: str) -> str:
    return "".join(form.format(*row) for row in ROWS)


def text(separator: str, header: str = "", end: str = "\n") -> str:
    return header + lines(separator.join(["{0}", "{1}", "{2}", "{3}"]) + end)


def held_out(processed: Processed, split: HeldOutSplit) -> dict[object, object]:
    found = load(processed, split, negatives=False).held_out
    assert found is not None
    users, items = user_ids(processed).to_pylist(), item_ids(processed).to_pylist()
    return {users[user]: items[item] for user, item in zip(found.user, found.item, strict=True)}


def pairs(processed: Processed) -> set[tuple[object, object]]:
    index = all_pairs(processed)
    users, items = user_ids(processed).to_pylist(), item_ids(processed).to_pylist()
    return {
        (users[user], items[item]) for user, item in zip(index.users(), index.items, strict=True)
    }


def check(processed: Processed) -> None:
    manifest = processed.manifest
    assert (manifest.n_users, manifest.n_items, manifest.n_interactions) == (3, 5, 10)
    assert (manifest.n_positives, manifest.n_low, manifest.n_train) == (9, 1, 3)
    assert user_ids(processed).to_pylist() == [1, 2, 3]
    assert item_ids(processed).to_pylist() == [10, 20, 30, 40, 50]
    assert pairs(processed) == {(user, item) for user, item, _, _ in ROWS}
    assert held_out(processed, "test") == {1: 30, 2: 50, 3: 40}
    assert held_out(processed, "validation") == {1: 20, 2: 40, 3: 10}


def write_plain(name: str, content: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / name).write_text(content)
        return folder / name

    return write


def write_gzip(folder: Path) -> Path:
    (folder / "data.csv.gz").write_bytes(
        gzip.compress(text(",", "userId,movieId,rating,timestamp\n").encode())
    )
    return folder / "data.csv.gz"


def table(rows: list[tuple[int, int, float, int]] = ROWS) -> pa.Table:
    return pa.table(
        dict(
            zip(("user_id", "item_id", "rating", "timestamp"), zip(*rows, strict=True), strict=True)
        )
    )


def write_parquet(folder: Path) -> Path:
    pq.write_table(table(), folder / "data.parquet")
    return folder / "data.parquet"


def write_parquet_folder(folder: Path) -> Path:
    (folder / "data").mkdir()
    for number, start in enumerate(range(0, 10, 4)):
        pq.write_table(table(ROWS[start : start + 4]), folder / "data" / f"part-{number}.parquet")
    (folder / "data" / "_SUCCESS").touch()
    return folder / "data"


def write_dates(folder: Path) -> Path:
    rows = [
        f"{user},{item},{rating},2020-01-01T00:{time // 60:02d}:{time % 60:02d}Z"
        for user, item, rating, time in ROWS
    ]
    (folder / "data.csv").write_text("user,item,score,date\n" + "\n".join(rows))
    return folder / "data.csv"


def write_parquet_dates(folder: Path) -> Path:
    time = pa.array([row[3] * 1_000_000_000 for row in ROWS], pa.timestamp("ns", "Europe/Paris"))
    dates = table().drop_columns("timestamp").append_column("date", time)
    text_ids = dates.set_column(
        0, "user_id", dates["user_id"].cast(pa.string()).dictionary_encode()
    )
    pq.write_table(text_ids, folder / "data.parquet")
    return folder / "data.parquet"


def with_movies(
    name: str, content: str, movies: str, lines: str, encoding: str
) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / "ml").mkdir()
        (folder / "ml" / name).write_text(content)
        (folder / "ml" / movies).write_text(lines, encoding=encoding)
        return folder / "ml"

    return write


def movies(line: str, header: str = "") -> str:
    return header + "".join(line.format(item, title) for item, title in TITLES.items())


LAYOUTS = {
    "csv with header": write_plain("data.csv", text(",", "userId,movieId,rating,timestamp\n")),
    "csv without header": write_plain("data.csv", text(",")),
    "csv with mark and carriage returns": write_plain(
        "d.csv", "\ufeff" + text(",", "User ID,Item,stars,ts\n", end="\r\n")
    ),
    "csv in another order": write_plain(
        "data.csv", "time,x,item,uid,rating\n" + lines("{3},,{1},{0},{2}\n")
    ),
    "quoted csv": write_plain(
        "data.csv", "user,note,item,rating,time\n" + lines('"{0}","a ""b"",\nc",{1},{2},{3}\n')
    ),
    "tsv": write_plain("data.tsv", text("\t")),
    "semicolons": write_plain("data.txt", text(";", "user;asin;overall;unixReviewTime\n")),
    "bars": write_plain("data.txt", text("|")),
    "double colons": write_plain("data.txt", text("::")),
    "no line end at the end": write_plain("data.csv", text(",").rstrip()),
    "iso dates": write_dates,
    "gzip": write_gzip,
    "parquet": write_parquet,
    "parquet folder": write_parquet_folder,
    "parquet dates and text ids": write_parquet_dates,
}  # fmt: skip

MOVIELENS = {
    "u.data": with_movies(
        "u.data", text("\t"), "u.item", movies("{}|{}|01-Jan-1995||http\n"), "latin-1"
    ),
    "ratings.dat": with_movies(
        "ratings.dat", text("::"), "movies.dat", movies("{}::{}::Drama|War\n"), "latin-1"
    ),
    "ratings.csv": with_movies(
        "ratings.csv",
        text(",", "userId,movieId,rating,timestamp\n"),
        "movies.csv",
        movies('{},"{}",Drama\n', "movieId,title,genres\n"),
        "utf-8",
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(prepared: Prepare, tmp_path: Path, layout: str) -> None:
    check(prepared(LAYOUTS[layout](tmp_path)))


@pytest.mark.parametrize("layout", MOVIELENS)
@pytest.mark.parametrize("form", ["folder", "file", "zip"])
def test_movielens_layouts(prepared: Prepare, tmp_path: Path, layout: str, form: str) -> None:
    folder = MOVIELENS[layout](tmp_path)
    path = folder
    if form == "file":
        path = folder / layout
    elif form == "zip":
        path = Path(shutil.make_archive(str(tmp_path / "ml"), "zip", tmp_path, "ml"))
    processed = prepared(path)
    check(processed)
    assert item_titles(processed).to_pylist() == ["Été", "Heat (1995)", "A, B: C", None, "Q"]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_titles_in_a_column(prepared: Prepare, tmp_path: Path, kind: str) -> None:
    titled = table().append_column(
        "title", pa.array([TITLES.get(row[1]) for row in ROWS], pa.string())
    )
    path = tmp_path / f"data.{kind}"
    if kind == "parquet":
        pq.write_table(titled, path)
    else:
        path.write_text(
            "user,item,rating,time,title\n"
            + "".join(f'{u},{i},{r},{t},"{TITLES.get(i, "")}"\n' for u, i, r, t in ROWS)
        )
    processed = prepared(path)
    check(processed)
    assert item_titles(processed).to_pylist() == ["Été", "Heat (1995)", "A, B: C", None, "Q"]


NAMES = {"user": ["Ann", "Bob", "Cid"], "item": ["Été", "Heat (1995)", "A, B: C", "Dune", "Q"]}
NOTE = (
    "the column name may be the users' and gives no titles; data.columns.title=name takes them "
    "from it"
)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("whose", ["user", "item"])
@pytest.mark.parametrize("fragment_bytes", [7, 1 << 25])
def test_a_name_is_a_title_if_it_is_the_items(
    prepared: Prepare,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    whose: str,
    fragment_bytes: int,
) -> None:
    monkeypatch.setattr("recsys.data.readers.text.CHUNK_BYTES", fragment_bytes)
    given = {
        name: number
        for number, name in enumerate(dict.fromkeys(row[whose == "item"] for row in sorted(ROWS)))
    }
    names = [NAMES[whose][given[row[whose == "item"]]] for row in ROWS]
    named = table().append_column("Name", pa.array(names))
    path = tmp_path / f"data.{kind}"
    if kind == "parquet":
        pq.write_table(named, path, row_group_size=2)
    else:
        named.to_pandas().to_csv(path, index=False)
    processed = prepared(path)
    expected = (
        [NAMES["item"][given[item]] for item in item_ids(processed).to_pylist()]
        if whose == "item"
        else [None] * 5
    )
    assert item_titles(processed).to_pylist() == expected
    assert (NOTE in processed.manifest.notes) == (whose == "user")


def test_names_that_fit_users_and_items_are_no_titles(prepared: Prepare, tmp_path: Path) -> None:
    # Each item has one row, and each user has one name: the names could be the users'.
    rows = "".join(
        f"{user},{user * 4 + step},Person {user},{step}\n" for user in range(3) for step in range(4)
    )
    (tmp_path / "data.csv").write_text("user,item,name,time\n" + rows)
    processed = prepared(tmp_path / "data.csv")
    assert item_titles(processed).null_count == 12
    assert NOTE in processed.manifest.notes


def test_a_chosen_column_of_titles(prepared: Prepare, tmp_path: Path) -> None:
    titled = [
        (user, item, time, f"Person {user}", TITLES.get(item, "")) for user, item, _, time in ROWS
    ]
    rows = "".join(
        f'{user},{item},{time},{name},"{title}"\n' for user, item, time, name, title in titled
    )
    path = tmp_path / "ratings.csv"
    path.write_text("user,item,time,name,what\n" + rows)
    (tmp_path / "movies.csv").write_text("movieId,name\n10,Beside\n40,Dune\n")
    expected: dict[str | int | None, list[str | None]] = {
        None: ["Beside", None, None, "Dune", None],
        "what": ["Été", "Heat (1995)", "A, B: C", "Dune", "Q"],
        4: ["Été", "Heat (1995)", "A, B: C", "Dune", "Q"],
        "name": ["Person 1", "Person 1", "Person 1", "Person 1", "Person 2"],
        "none": [None] * 5,
    }
    for title, titles in expected.items():
        found = prepared(path, {"data.columns": {"title": title}})
        assert item_titles(found).to_pylist() == titles
        assert (NOTE in found.manifest.notes) == (title is None)
    (tmp_path / "bare.csv").write_text(rows)
    bare = prepared(
        tmp_path / "bare.csv",
        {"data.columns": {"timestamp": 2, "rating": None, "title": 4}, "data.split": "random"},
    )
    assert item_titles(bare).to_pylist() == ["Été", "Heat (1995)", "A, B: C", None, "Q"]


def test_two_columns_have_no_ratings(prepared: Prepare, tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text(
        "".join(f"{user},{user + step}\n" for user in range(5) for step in range(4))
    )
    manifest = prepared(tmp_path / "data.csv", {"data.split": "random"}).manifest
    assert (manifest.n_positives, manifest.n_low) == (20, 0)


def test_chosen_columns(prepared: Prepare, tmp_path: Path) -> None:
    rows = "".join(f"{item},{time},{user},{rating}\n" for user, item, rating, time in ROWS)
    (tmp_path / "data.csv").write_text(rows)
    check(
        prepared(
            tmp_path / "data.csv",
            {"data.columns": {"user": 2, "item": 0, "rating": 3, "timestamp": 1}},
        )
    )
    (tmp_path / "named.csv").write_text("what,when,who,how\n" + rows)
    names = {"user": "who", "item": "what", "rating": "how", "timestamp": "when"}
    check(prepared(tmp_path / "named.csv", {"data.columns": names}))
    (tmp_path / "mixed.csv").write_text("what,timestamp,who,rating\n" + rows)
    check(prepared(tmp_path / "mixed.csv", {"data.columns": {"user": 2, "item": "what"}}))


def test_small_fragments_give_the_same_rows(
    prepared: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Fragments of these sizes cut lines at every position.
    for size in (7, 16, 17, 40):
        monkeypatch.setattr("recsys.data.readers.text.CHUNK_BYTES", size)
        path = tmp_path / f"data-{size}.csv"
        path.write_text(text(",", "userId,movieId,rating,timestamp\n"))
        # The content is the same: without another seed the earlier result would be found.
        check(prepared(path, {"data.split_seed": size}))


def test_small_chunks_of_a_stream_give_the_same_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = "user,note,item\n" + "".join(f'{u},"a ""b"",\n\nc",{i}\n' for u, i, _, _ in ROWS)
    (tmp_path / "data.csv.gz").write_bytes(gzip.compress(content.encode()))
    source = find_source(DataConfig(source=str(tmp_path / "data.csv.gz")))
    for size in (1, 5, 16, 40, 1000):
        monkeypatch.setattr("recsys.data.readers.text.CHUNK_BYTES", size)
        batches = [
            batch for fragment in list_fragments(source, None) for batch in read(fragment, None)
        ]
        found = [
            pair
            for batch in batches
            for pair in zip(batch.user.to_pylist(), batch.item.to_pylist(), strict=True)
        ]
        assert found == [(user, item) for user, item, _, _ in ROWS]
        assert np.array_equal(np.concatenate([batch.order for batch in batches]), np.arange(10))


NCF_TRAIN = "0\t0\t1\t0\n0\t1\t1\t0\n0\t2\t1\t0\n1\t3\t2\t0\n1\t1\t1\t0\n2\t4\t1\t0\n"
NCF_TEST = "0\t3\t5\t99\n1\t5\t1\t98\n2\t0\t3\t97\n"
NCF_NEGATIVE = "(0,3)\t4\t5\t3\n(1,5)\t0\t2\t6\n(2,0)\t1\t2\t3\n"


def write_ncf(folder: Path) -> Path:
    folder.mkdir()
    (folder / "toy.train.rating").write_text(NCF_TRAIN)
    (folder / "toy.test.rating").write_text(NCF_TEST)
    (folder / "toy.test.negative").write_text(NCF_NEGATIVE)
    return folder


def test_ncf_layout(prepared: Prepare, tmp_path: Path) -> None:
    processed = prepared(write_ncf(tmp_path / "ncf"), {"evaluation.n_candidates": 2})
    manifest = processed.manifest
    # Every row is a positive, though rated below 4. Item 6 is a candidate only. User 2 has one
    # training item, which stays in train.
    assert (manifest.n_users, manifest.n_items, manifest.n_positives, manifest.n_low) == (
        3,
        7,
        9,
        0,
    )
    assert (
        manifest.n_train,
        manifest.n_validation,
        manifest.n_test,
        manifest.n_candidates_given,
    ) == (4, 2, 3, 3)
    test = load(processed, "test", negatives=False)
    assert test.held_out is not None
    assert test.held_out.candidates is not None
    assert test.held_out.item.tolist() == [3, 5, 0]
    assert test.held_out.candidates.tolist() == [[4, 5, -1], [0, 2, 6], [1, 2, 3]]
    assert len(test.user) == 6
    validation = load(processed, "validation", negatives=False)
    assert validation.held_out is not None
    assert validation.held_out.candidates is not None
    assert validation.held_out.user.tolist() == [0, 1]
    assert validation.held_out.candidates.shape == (2, 2)
    interacted = {0: {0, 1, 2}, 1: {3, 1}}  # without test, which validation must not see
    for user, candidates in zip(
        validation.held_out.user.tolist(), validation.held_out.candidates, strict=True
    ):
        assert len(set(candidates.tolist()) - interacted[user]) == 2


def test_a_repeated_candidate_counts_once(prepared: Prepare, tmp_path: Path) -> None:
    folder = write_ncf(tmp_path / "ncf")
    (folder / "toy.test.negative").write_text(
        "(0,3)\t4\t4\t5\t4\n(1,5)\t0\t2\t0\t0\n(2,0)\t1\t2\t2\t1\n"
    )
    processed = prepared(folder, {"evaluation.n_candidates": 2})
    assert processed.manifest.n_candidates_given == 2
    test = load(processed, "test", negatives=False)
    assert test.held_out is not None
    assert test.held_out.candidates is not None
    assert test.held_out.candidates.tolist() == [[4, 5], [0, 2], [1, 2]]


def test_ncf_layout_with_a_line_missing(prepared: Prepare, tmp_path: Path) -> None:
    folder = write_ncf(tmp_path / "ncf")
    (folder / "toy.test.negative").write_text(NCF_NEGATIVE.replace("(1,5)", "(1,4)"))
    with pytest.raises(
        ValueError,
        match=r"toy\.test\.negative: must have a line for each test pair, but 1 user \(1\) lack",
    ):
        prepared(folder, {"evaluation.n_candidates": 2})
    (folder / "toy.test.negative").write_text("")
    with pytest.raises(
        ValueError, match=r"toy\.test\.negative: must have a line for each test pair, but 3 users"
    ):
        prepared(folder, {"evaluation.n_candidates": 2})
    (folder / "toy.test.negative").write_text(NCF_NEGATIVE.replace("(1,5)", "1"))
    with pytest.raises(
        ValueError, match=r"toy\.test\.negative, row 2: must be \(user,item\) and candidates"
    ):
        prepared(folder, {"evaluation.n_candidates": 2})


def test_ncf_files_differ_from_the_same_files_with_ratings(
    prepared: Prepare, tmp_path: Path
) -> None:
    folder = write_ncf(tmp_path / "ncf")
    (folder / "toy.test.negative").unlink()
    (folder / "toy.train.rating").write_text(NCF_TRAIN.replace("\t1\t0", "\t5\t0"))
    files = {split: str(folder / f"toy.{split}.rating") for split in ("train", "test")}
    as_ncf, as_files = prepared(folder), prepared(None, {"data.files": files})
    assert (as_ncf.manifest.n_low, as_files.manifest.n_low) == (0, 3)


def test_given_files(prepared: Prepare, tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text(
        "user,item,rating\n1,1,5\n1,2,5\n1,3,2\n2,1,5\n2,9,4\n3,5,1\n"
    )
    (tmp_path / "validation.tsv").write_text("1\t4\t5\n2\t4\t1\n3\t1\t5\n")
    pq.write_table(pa.table({"user": [1, 2, 2], "item": [5, 6, 9]}), tmp_path / "test.parquet")
    files = {
        split: str(next(tmp_path.glob(f"{split}.*"))) for split in ("train", "validation", "test")
    }
    processed = prepared(None, {"data.files": files})
    manifest = processed.manifest
    # (2, 9) is in train and test, and stays in test only. User 3 has only a low rating in train:
    # the search has no positive of it to train on.
    assert (manifest.n_train, manifest.n_validation, manifest.n_test, manifest.n_low) == (
        3,
        1,
        3,
        3,
    )
    assert (manifest.n_overlaps, manifest.n_duplicates) == (1, 0)
    assert (manifest.n_cold_validation_users, manifest.n_cold_users) == (1, 0)
    assert held_out(processed, "validation") == {1: 4}
    validation = load(processed, "validation", negatives=False)
    assert validation.held_out is not None
    assert (validation.low_user.tolist(), validation.held_out.low_user.tolist()) == ([0, 2], [1])
    assert (3, 1) in pairs(processed)


def test_a_user_of_validation_only_is_trained_and_scored_in_final_training(
    prepared: Prepare, tmp_path: Path
) -> None:
    rows = {
        "train": ["1,1,5", "1,2,5", "2,2,5", "2,3,5"],
        "validation": ["1,3,5", "new,4,5", "new,5,1", "2,9,1"],
        "test": ["1,4,5", "new,6,5", "new,7,1", "late,8,5", "late,9,1"],
    }
    for split, lines in rows.items():
        (tmp_path / f"{split}.csv").write_text("user,item,rating\n" + "\n".join(lines) + "\n")
    processed = prepared(
        None, {"data.files": {split: str(tmp_path / f"{split}.csv") for split in rows}}
    )
    manifest = processed.manifest
    assert (manifest.n_validation, manifest.n_test) == (1, 2)
    assert (manifest.n_cold_validation_users, manifest.n_cold_users) == (1, 1)
    users, items = user_ids(processed).to_pylist(), item_ids(processed).to_pylist()
    assert users == ["1", "2", "late", "new"]
    found = {}
    for split in ("validation", "test"):
        data = load(processed, split, negatives=False)  # type: ignore[arg-type]
        assert data.held_out is not None
        pairs_by_kind = [(data.user, data.item), (data.low_user, data.low_item)]
        pairs_by_kind += [
            (data.held_out.user, data.held_out.item),
            (data.held_out.low_user, data.held_out.low_item),
        ]
        found[split] = [
            [(users[u], items[i]) for u, i in zip(*pair, strict=True)] for pair in pairs_by_kind
        ]
    trained = [("1", 1), ("1", 2), ("2", 2), ("2", 3)]
    assert found["validation"] == [trained, [], [("1", 3)], [("2", 9)]]
    trained = [("1", 1), ("1", 2), ("1", 3), ("2", 2), ("2", 3), ("new", 4)]
    assert found["test"] == [trained, [("2", 9), ("new", 5)], [("1", 4), ("new", 6)], [("new", 7)]]


def test_given_files_without_validation(prepared: Prepare, tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text(
        "user,item,rating,time\n1,1,5,30\n1,2,5,10\n1,3,2,40\n2,1,5,1\n"
    )
    (tmp_path / "test.csv").write_text("user,item,rating,time\n1,4,5,50\n2,5,5,9\n")
    files = {split: str(tmp_path / f"{split}.csv") for split in ("train", "test")}
    processed = prepared(None, {"data.files": files})
    # User 1's last training positive is item 1. User 2 has only one, which stays in train.
    assert held_out(processed, "validation") == {1: 1}
    assert held_out(processed, "test") == {1: 4, 2: 5}


def test_zip_of_one_file(prepared: Prepare, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "data.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("deep/inside/events.tsv", text("\t"))
    check(prepared(tmp_path / "data.zip"))
