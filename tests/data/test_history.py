from pathlib import Path

import numpy as np
import pytest

from recsys.config.schema import Config, replace_values
from recsys.data.history import count_later, count_recent
from recsys.data.processed import load
from recsys.data.resolve import resolve
from recsys.errors import InputError
from tests.data.conftest import Prepare

# Of user 0 by time: items 3, 0, 1 and 2 together, 4. Item 5 is rated low.
RATINGS = """userId,itemId,rating,timestamp
0,0,5,20
0,1,5,30
0,2,5,30
0,3,5,10
0,4,5,40
0,5,1,35
1,0,5,7
1,6,5,8
1,7,5,9
"""


def test_later_interactions_are_counted_and_equal_times_share_a_number() -> None:
    user = np.array([0, 0, 0, 0, 2, 2])
    time = np.array([5, -3, 5, 9, 1, 1])
    assert count_later(user, time).tolist() == [1, 3, 1, 0, 0, 0]
    assert count_later(user[:0], time[:0]).tolist() == []


def test_counts_equal_those_of_all_pairs() -> None:
    random = np.random.default_rng(0)
    user = np.sort(random.integers(0, 8, 200))
    time = random.integers(-10, 10, 200)
    later = (user[:, None] == user) & (time[:, None] < time)
    assert count_later(user, time).tolist() == later.sum(1).tolist()


def test_recent_interactions_are_counted_by_item() -> None:
    # 2 of 11 are a tenth or more; another one is at the time of the earlier one.
    item = np.array([0, 1, 2, 2, 1, 0, 0, 0, 0, 0, 0])
    time = np.array([9, 8, 7, 8, -5, 6, 5, 4, 3, 2, 1])
    assert count_recent(item, time, 4).tolist() == [1, 1, 1, 0]
    assert count_recent(item[:0], time[:0], 2).tolist() == [0, 0]


def test_training_has_the_order_of_its_own_positives(prepared: Prepare, tmp_path: Path) -> None:
    file = tmp_path / "ratings.csv"
    file.write_text(RATINGS)
    processed = prepared(file)
    assert processed.manifest.has_times
    search, final = load(processed, "validation", False), load(processed, "test", False)
    assert search.n_later is not None
    assert final.n_later is not None
    # Of user 0, item 4 is in test, and item 2, which follows item 1 in the file, in validation.
    # A search orders items 3, 0 and 1; final training has item 2 beside item 1. Ids are items.
    assert search.item.tolist() == [0, 1, 3, 0]
    assert search.n_later.tolist() == [1, 0, 2, 0]
    assert final.item.tolist() == [0, 1, 2, 3, 0, 6]
    assert final.n_later.tolist() == [2, 0, 0, 3, 1, 0]
    # The latest is one of user 0: items 1 and 2 are together then. A search knows item 1 alone.
    assert search.n_recent is not None
    assert final.n_recent is not None
    assert search.n_recent.tolist() == [0, 1, 0, 0, 0, 0, 0, 0]
    assert final.n_recent.tolist() == [0, 1, 1, 0, 0, 0, 0, 0]


def test_data_without_times_have_no_order(prepared: Prepare, tmp_path: Path) -> None:
    pairs = [(user, item) for user in range(20) for item in range(30) if (user + item) % 3]
    file = tmp_path / "ratings.csv"
    file.write_text("userId,itemId\n" + "\n".join(f"{user},{item}" for user, item in pairs))
    processed = prepared(file, {"data.split": "random"})
    assert not processed.manifest.has_times
    assert load(processed, "validation", False).n_later is None
    config = replace_values(Config(), {"evaluation.k": 1, "training.recency_half_life": 5.0})
    with pytest.raises(
        InputError,
        match="has no times that differ, but got 5",
    ):
        resolve(config, processed.manifest)


def test_a_validation_file_without_times_gives_no_order(prepared: Prepare, tmp_path: Path) -> None:
    lines = RATINGS.splitlines()
    of = {
        "train": [*lines[:5], lines[7]],
        "validation": ["userId,itemId,rating", "0,4,5"],
        "test": [lines[0], lines[9]],
    }
    files = {}
    for name, rows in of.items():
        (tmp_path / f"{name}.csv").write_text("\n".join(rows))
        files[name] = str(tmp_path / f"{name}.csv")
    assert not prepared(None, {"data.files": files}).manifest.has_times
    del files["validation"]
    assert prepared(None, {"data.files": files}).manifest.has_times
