from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.config.sections import ColumnsConfig
from recsys.data.preprocessing.histories import read_histories
from recsys.errors import InputError

ITEMS = pa.array([10, 20, 30, 40])


def test_a_file_with_ratings_and_times(tmp_path: Path) -> None:
    file = tmp_path / "new.csv"
    file.write_text(
        "userId,itemId,rating,timestamp\n"
        "z,30,5,300\n"  # rated again below
        "z,20,5,200\n"
        "a,40,1,5\n"
        "z,10,4,200\n"
        "z,99,5,900\n"  # an unknown item
        "z,30,2,400\n"
        "z,40,5,100\n"
    )
    found = read_histories(file, None, 4.0, ITEMS)
    assert (found.user_ids.to_pylist(), found.n_unknown) == (["z", "a"], 1)
    data = found.interactions
    assert (data.n_users, data.n_items) == (2, 4)
    assert (data.user.tolist(), data.item.tolist()) == ([0, 0, 0], [0, 1, 3])
    assert data.n_later is not None
    assert data.n_later.tolist() == [0, 0, 2]
    low = zip(data.low_user.tolist(), data.low_item.tolist(), strict=True)
    assert list(low) == [(0, 2), (1, 3)]
    assert data.seen.items.tolist() == [0, 1, 2, 3, 3]


def test_rows_without_times_are_in_their_order(tmp_path: Path) -> None:
    file = tmp_path / "new.tsv"
    file.write_text("userId\titemId\n7\t40\n8\t10\n7\t10\n7\t20\n7\t40\n")
    data = read_histories(file, None, 4.0, ITEMS.cast(pa.string())).interactions
    assert (data.user.tolist(), data.item.tolist()) == ([0, 0, 0, 1], [0, 1, 3, 0])
    # The last row of user 7 with item 40 counts.
    assert data.n_later is not None
    assert data.n_later.tolist() == [2, 1, 0, 0]


def test_columns_and_no_threshold_of_the_data_and_rows_in_batches(tmp_path: Path) -> None:
    table = pa.table(
        {
            "who": pa.array(["u", "v", "u", "u"]).dictionary_encode(),
            "what": ["30", "10", "20", "nothing"],
            "rating": [1.0, 5.0, 2.0, 3.0],
            "when": pa.array([3, 2, 1, 0], pa.timestamp("s")),
        }
    )
    file = tmp_path / "new.parquet"
    pq.write_table(table, file, row_group_size=1)
    columns = ColumnsConfig(user="who", item="what", timestamp="when", title="name")
    found = read_histories(file, columns, None, ITEMS)
    assert (found.user_ids.to_pylist(), found.n_unknown) == (["u", "v"], 1)
    data = found.interactions
    assert (data.user.tolist(), data.item.tolist()) == ([0, 0, 1], [1, 2, 0])
    assert data.n_later is not None
    assert data.n_later.tolist() == [1, 0, 0]
    assert len(data.low_user) == 0


def test_files_that_cannot_be_a_history(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, columns in (("a", ["user", "item", "timestamp"]), ("b", ["user", "item"])):
        table = pa.table({column: [10, 20] for column in columns})
        pq.write_table(table, folder / f"{name}.parquet")
    with pytest.raises(InputError, match=r"b.parquet: must have times like .*a.parquet"):
        read_histories(folder, None, 4.0, ITEMS)
    nobody = pa.array([], pa.int64())
    empty = tmp_path / "empty.parquet"
    pq.write_table(pa.table({"user": nobody, "item": nobody}), empty)
    with pytest.raises(InputError, match=r"^history: must hold interactions, but .* has no row"):
        read_histories(empty, None, 4.0, ITEMS)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^history: must be a path that exists"):
        read_histories(tmp_path / "no.csv", None, 4.0, ITEMS)
