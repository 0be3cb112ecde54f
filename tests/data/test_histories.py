from pathlib import Path

import pyarrow as pa
import pytest

from recsys.config.sections import DataConfig
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
    found = read_histories(file, DataConfig(), ITEMS)
    assert (found.user_ids.to_pylist(), found.n_unknown) == (["z", "a"], 1)
    data = found.interactions
    assert (data.n_users, data.n_items) == (2, 4)
    assert (data.user.tolist(), data.item.tolist()) == ([0, 0, 0, 1], [0, 1, 3, 0])
    assert data.n_later is not None
    assert data.n_later.tolist() == [0, 0, 2]
    low = zip(data.low_user.tolist(), data.low_item.tolist(), strict=True)
    assert list(low) == [(0, 2), (1, 3)]
    assert data.seen.items.tolist() == [0, 1, 2, 3, 3]


def test_rows_without_times_are_in_their_order(tmp_path: Path) -> None:
    file = tmp_path / "new.tsv"
    file.write_text("userId\titemId\n7\t40\n8\t10\n7\t10\n7\t20\n7\t40\n")
    data = read_histories(file, DataConfig(), ITEMS.cast(pa.string())).interactions
    assert list(zip(data.user.tolist(), data.item.tolist(), strict=True)) == [
        (0, 0),
        (0, 1),
        (0, 3),
        (1, 0),
    ]
    # The last row of user 7 with item 40 counts.
    assert data.n_later is not None
    assert data.n_later.tolist() == [2, 1, 0, 0]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^history: must be a path that exists"):
        read_histories(tmp_path / "no.csv", DataConfig(), ITEMS)
