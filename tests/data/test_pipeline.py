"""The pipeline from files to the processed form, on Ray Data."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.cluster.connection import connect
from recsys.config.schema import Config, replace_values
from recsys.console.verbosity import NORMAL, VERBOSE, set_verbosity
from recsys.data.manifest import read_manifest
from recsys.data.preprocessing import pipeline
from recsys.data.preprocessing.pipeline import prepare
from recsys.data.preprocessing.split_strategies import random_split
from recsys.data.processed import (
    Processed,
    all_pairs,
    item_ids,
    item_titles,
    load,
    user_ids,
)
from recsys.data.resolve import resolve
from recsys.data.splits import HELD_OUT_SPLITS, TEST
from recsys.errors import InputError
from tests.data.conftest import Prepare


def synthetic(
    path: Path, n_users: int = 60, n_items: int = 80, n_rows: int = 2500
) -> set[tuple[int, int]]:
    """Ratings with duplicates and ties in time; returns the distinct pairs."""
    random = np.random.default_rng(5)
    user, item = random.integers(0, n_users, n_rows), random.integers(0, n_items, n_rows)
    rating, time = random.integers(1, 6, n_rows), random.integers(0, 400, n_rows)
    np.savetxt(path, np.stack([user, item, rating, time], axis=1), fmt="%d", delimiter=",")
    return set(zip(user.tolist(), item.tolist(), strict=True))


def pairs_of(processed: Processed) -> set[tuple[int, int]]:
    index = all_pairs(processed)
    users, items = user_ids(processed).to_pylist(), item_ids(processed).to_pylist()
    return {
        (users[user], items[item]) for user, item in zip(index.users(), index.items, strict=True)
    }


def test_embedded_set(prepared: Prepare) -> None:
    processed = prepared("ml-latest-small", {"evaluation.k": 10})
    manifest = processed.manifest
    assert (manifest.n_users, manifest.n_items, manifest.n_interactions) == (671, 9066, 100_004)
    ratings = pq.read_table(
        Path(pipeline.__file__).parents[1] / "ml-latest-small" / "ratings.parquet"
    ).to_pandas()
    positives = ratings[ratings.rating >= 4]
    counts = positives.groupby("user_id").size()
    n_held_out = int((counts >= 3).sum())
    assert (manifest.n_positives, manifest.n_low) == (len(positives), 100_004 - len(positives))
    assert (manifest.n_test, manifest.n_validation) == (n_held_out, n_held_out)
    assert manifest.n_train == len(positives) - 2 * n_held_out
    titles = item_titles(processed)
    assert (titles[0].as_py(), titles.null_count) == (
        "Toy Story",
        5,
    )  # five have none in the file either
    # The last positive of each user by time, ties by file order.
    last = (
        positives.reset_index()
        .sort_values(["user_id", "timestamp", "index"])
        .groupby("user_id")
        .item_id.last()[counts >= 3]
    )
    test = load(processed, "test", negatives=False)
    assert test.held_out is not None
    users, items = user_ids(processed).to_numpy(), item_ids(processed).to_numpy()
    found = dict(
        zip(users[test.held_out.user].tolist(), items[test.held_out.item].tolist(), strict=True)
    )
    assert found == last.to_dict()


def test_training_data(prepared: Prepare) -> None:
    processed = prepared("ml-latest-small")
    validation, test = (
        load(processed, "validation", negatives=True),
        load(processed, "test", negatives=True),
    )
    assert test.negatives is None
    assert validation.negatives is not None
    assert validation.held_out is not None
    assert validation.negatives.shape == (processed.manifest.n_train, 4)
    assert validation.user.dtype == validation.item.dtype == validation.negatives.dtype == np.int32
    key = validation.user.astype(np.int64) * 9066 + validation.item
    assert (np.diff(key) > 0).all()
    seen = validation.seen.users().astype(np.int64) * 9066 + validation.seen.items
    drawn = validation.user[:, None].astype(np.int64) * 9066 + validation.negatives
    assert not np.isin(drawn, seen).any()
    # Training does not know what is held out: those may be drawn like any other item.
    held_out = validation.held_out.user.astype(np.int64) * 9066 + validation.held_out.item
    assert np.isin(drawn, held_out).any()
    # Train and validation positives are what is trained on in the end.
    both = np.union1d(key, held_out)
    assert np.array_equal(test.user.astype(np.int64) * 9066 + test.item, both)


def test_test_files_are_not_opened_for_validation(prepared: Prepare) -> None:
    processed = prepared("ml-latest-small")
    for path in processed.path.glob("test*"):
        path.unlink()
    assert load(processed, "validation", negatives=False).held_out is not None


def test_duplicates(prepared: Prepare, tmp_path: Path) -> None:
    rows = [
        "a,x,5,10", "a,x,1,20", "a,x,5,15",  # the latest says 1
        "a,y,1,7", "a,y,5,7",  # equal times: the later line says 5
        "b,x,5,1", "b,y,5,2", "b,z,5,3", "b,z,5,3", "b,w,1,9", "a,z,5,1", "a,w,5,2",
    ]  # fmt: skip
    (tmp_path / "data.csv").write_text("user,item,rating,time\n" + "\n".join(rows) + "\nc,v,5,1\n")
    processed = prepared(tmp_path / "data.csv")
    manifest = processed.manifest
    assert (manifest.n_interactions, manifest.n_duplicates, manifest.n_low) == (9, 4, 2)
    held_out = load(processed, "test", negatives=False).held_out
    assert held_out is not None
    items = item_ids(processed).to_pylist()
    assert [items[item] for item in held_out.item] == ["y", "z"]


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (["10", "9", "-3", "0"], [-3, 0, 9, 10]),
        (["10", "9", "007", "7"], ["007", "10", "7", "9"]),
        (["10", "9", "x", "-0"], ["-0", "10", "9", "x"]),
        (["99999999999999999999", "5", "6", "7"], ["5", "6", "7", "99999999999999999999"]),
        (
            ["9223372036854775807", "5", "6", "-9223372036854775808"],
            [-9223372036854775808, 5, 6, 9223372036854775807],
        ),
        (["ü", "z", "A", "NA"], ["A", "NA", "z", "ü"]),
    ],
)
def test_ids(
    prepared: Prepare,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ids: list[str],
    expected: list[object],
) -> None:
    # Pieces of a line each: no piece sees all ids.
    monkeypatch.setattr("recsys.data.readers.text.CHUNK_BYTES", 8)
    lines = [
        f"{user},{item}\n"
        for position, user in enumerate(ids)
        for item in (ids[position], ids[position - 1])
    ]
    (tmp_path / "data.csv").write_text("user,item\n" + "".join(lines))
    values = {
        "data.split": "random",
        "data.test_fraction": 0.4,
        "data.validation_fraction": 0.4,
        "data.n_negatives": 1,
    }
    processed = next(
        found
        for seed in range(20)
        if (found := tried(prepared, tmp_path, {**values, "data.split_seed": seed}))
    )
    assert user_ids(processed).to_pylist() == item_ids(processed).to_pylist() == expected
    by_id = {(str(user), str(item)) for user, item in pairs_of(processed)}
    assert by_id == {tuple(line.strip().split(",")) for line in lines}


def tried(prepared: Prepare, tmp_path: Path, values: dict[str, object]) -> Processed | None:
    """The processed data, None where chance leaves a split empty."""
    try:
        return prepared(tmp_path / "data.csv", values)
    except ValueError as error:
        if "must have a positive in" not in str(error):
            raise
        return None


@pytest.mark.parametrize("strategy", ["leave_one_out", "random", "temporal"])
def test_buckets_make_no_difference(
    prepared: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strategy: str
) -> None:
    pairs = synthetic(tmp_path / "data.csv")
    values: dict[str, object] = {"data.split": strategy}
    whole = prepared(tmp_path / "data.csv", values)
    kept = shutil.copytree(whole.path, tmp_path / "whole")
    shutil.rmtree(whole.path)
    monkeypatch.setattr("recsys.data.preprocessing.pipeline.BUCKET_ROWS", 400)
    monkeypatch.setattr("recsys.data.readers.text.CHUNK_BYTES", 3000)
    cut = prepared(tmp_path / "data.csv", values)
    assert len(list(cut.path.glob("train-*"))) == 7
    assert pairs_of(cut) == pairs
    counts = {"files", "seconds"}
    assert cut.manifest.model_dump(exclude=counts) == whole.manifest.model_dump(exclude=counts)
    whole = Processed(kept, whole.fingerprint, whole.manifest)
    for split in HELD_OUT_SPLITS:
        one, other = load(whole, split, negatives=False), load(cut, split, negatives=False)
        assert one.held_out is not None
        assert other.held_out is not None
        for name in ("user", "item", "low_user", "low_item"):
            assert np.array_equal(getattr(one.held_out, name), getattr(other.held_out, name))
        assert np.array_equal(one.item, other.item)


def test_the_same_again_is_the_same_to_the_byte(
    prepared: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synthetic(tmp_path / "data.csv")
    monkeypatch.setattr("recsys.data.preprocessing.pipeline.BUCKET_ROWS", 400)
    values = {
        "data.split": "random",
        "evaluation.protocol": "sampled",
        "evaluation.n_candidates": 20,
    }
    first = prepared(tmp_path / "data.csv", values)
    before = {path.name: path.read_bytes() for path in first.path.glob("*.parquet")}
    shutil.rmtree(first.path)
    again = prepared(tmp_path / "data.csv", values)
    assert {path.name: path.read_bytes() for path in again.path.glob("*.parquet")} == before


def test_held_out_negatives_and_candidates(prepared: Prepare, tmp_path: Path) -> None:
    pairs = synthetic(tmp_path / "data.csv")
    values = {
        "data.split": "random",
        "evaluation.protocol": "sampled",
        "evaluation.n_candidates": 20,
        "data.n_negatives": 3,
    }
    processed = prepared(tmp_path / "data.csv", values)
    users, items = user_ids(processed).to_pylist(), item_ids(processed).to_pylist()
    code = random_split(*np.divmod(np.arange(60 * 80), 80), 0, 0.2, 0.1).reshape(60, 80)
    seen = {"test": pairs, "validation": {pair for pair in pairs if code[pair] != TEST}}
    for split in HELD_OUT_SPLITS:
        held_out = load(processed, split, negatives=False).held_out
        assert held_out is not None
        assert held_out.negatives is not None
        assert held_out.candidates is not None
        assert held_out.negatives.shape == (len(held_out.user), 3)
        assert all(len(set(row)) == 20 for row in held_out.candidates.tolist())
        for lists in (held_out.negatives, held_out.candidates):
            drawn = {
                (users[u], items[i])
                for u, row in zip(held_out.user, lists, strict=True)
                for i in row
            }
            assert not drawn & seen[split]


def test_temporal_split(prepared: Prepare, tmp_path: Path) -> None:
    # 20 interactions at times 1..20 in mixed order, with a duplicate that must not shift the cut;
    # 9 and 19, 20 are low.
    time = np.random.default_rng(0).permutation(20) + 1
    rows = [f"{t % 3},{t},{2 if t in {9, 19, 20} else 5},{t}" for t in time] + ["0,3,5,1"] * 5
    (tmp_path / "data.csv").write_text("user,item,rating,time\n" + "\n".join(rows) + "\n")
    fractions = {"data.test_fraction": 0.25, "data.validation_fraction": 0.2}
    processed = prepared(tmp_path / "data.csv", {"data.split": "temporal", **fractions})
    # Test is the last 5 of 20 (16..20), validation the last 3 of 15 (13..15).
    items = item_ids(processed).to_numpy()
    test, validation = (
        load(processed, "test", negatives=False),
        load(processed, "validation", negatives=False),
    )
    assert test.held_out is not None
    assert validation.held_out is not None
    assert sorted(items[test.held_out.item].tolist()) == [16, 17, 18]
    assert sorted(items[test.held_out.low_item].tolist()) == [19, 20]
    assert sorted(items[validation.held_out.item].tolist()) == [13, 14, 15]
    assert items[validation.low_item].tolist() == [9]
    assert processed.manifest.n_duplicates == 5


def test_users_who_come_late_are_cold(prepared: Prepare, tmp_path: Path) -> None:
    rows = [f"{t % 2},{t},5,{t}" for t in range(1, 17)] + [
        "7,5,5,17",
        "7,6,5,19",
        "0,40,5,18",
        "1,41,5,20",
    ]
    (tmp_path / "data.csv").write_text("\n".join(rows))
    processed = prepared(
        tmp_path / "data.csv", {"data.split": "temporal", "data.test_fraction": 0.2}
    )
    assert (processed.manifest.n_cold_users, processed.manifest.n_test) == (1, 2)
    assert (7, 5) in pairs_of(processed)


def test_k_core(prepared: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = synthetic(tmp_path / "data.csv", n_users=80, n_items=150, n_rows=1300)
    left, before = set(pairs), -1
    while before != len(left):
        before = len(left)
        users, items = zip(*left, strict=True)
        left = {
            (user, item) for user, item in left if users.count(user) >= 8 and items.count(item) >= 7
        }
    assert len(left) == 927  # after seven rounds
    monkeypatch.setattr("recsys.data.preprocessing.pipeline.BUCKET_ROWS", 300)
    values = {"data.min_user_interactions": 8, "data.min_item_interactions": 7}
    processed = prepared(tmp_path / "data.csv", values)
    assert pairs_of(processed) == left
    assert processed.manifest.n_items == len({item for _, item in left})
    assert processed.manifest.n_duplicates == 1300 - len(pairs)


def test_found_again(prepared: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synthetic(tmp_path / "data.csv")
    first = prepared(tmp_path / "data.csv")
    (tmp_path / "moved").mkdir()
    shutil.copy(tmp_path / "data.csv", tmp_path / "moved" / "data.csv")
    monkeypatch.setattr(pipeline, "_make", None)
    for values in (
        {},
        {"training.learning_rate": 0.5},
        {"data.low_ratings": "ignore"},
        {"data.test_fraction": 0.4},
    ):
        assert prepared(tmp_path / "data.csv", values).fingerprint == first.fingerprint
    assert prepared(tmp_path / "moved" / "data.csv").path == first.path
    assert read_manifest(first.path) == first.manifest


@pytest.mark.parametrize(
    "values",
    [
        {"data.positive_threshold": 3.0},
        {"data.split": "temporal"},
        {"data.split_seed": 1},
        {"data.n_negatives": 5},
        {"data.min_item_interactions": 2},
        {"evaluation.protocol": "sampled", "evaluation.n_candidates": 10},
        {"data.columns": {"user": 0}},
    ],
)
def test_a_changed_setting_is_other_data(
    prepared: Prepare, tmp_path: Path, values: dict[str, object]
) -> None:
    synthetic(tmp_path / "data.csv")
    assert (
        prepared(tmp_path / "data.csv").fingerprint
        != prepared(tmp_path / "data.csv", values).fingerprint
    )


def test_changed_content_is_other_data(prepared: Prepare, tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    synthetic(path)
    first = prepared(path)
    content = path.read_text()
    path.write_text(content + "0,0,5,1\n")
    assert prepared(path).fingerprint != first.fingerprint
    path.write_text(content)
    assert prepared(path).fingerprint == first.fingerprint


def test_checksums_are_remembered(
    prepared: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "data.csv"
    synthetic(path)
    first = prepared(path)
    memory = tmp_path / "experiments" / "processed" / "checksums.json"
    size, changed, _ = json.loads(memory.read_text())[str(path)]
    assert (size, changed) == (path.stat().st_size, path.stat().st_mtime_ns)
    monkeypatch.setattr("recsys.data.preprocessing.fingerprint.hashlib.file_digest", None)
    assert prepared(path).fingerprint == first.fingerprint
    memory.write_text("{ half")
    monkeypatch.undo()
    assert prepared(path).fingerprint == first.fingerprint


@pytest.mark.parametrize("damage", ["no manifest", "half a manifest", "short file", "missing file"])
def test_damaged_folders_are_created_again(prepared: Prepare, tmp_path: Path, damage: str) -> None:
    synthetic(tmp_path / "data.csv")
    first = prepared(tmp_path / "data.csv")
    manifest, train = first.path / "manifest.json", first.path / "train-00000.parquet"
    content = train.read_bytes()
    if damage == "no manifest":
        manifest.unlink()
    elif damage == "half a manifest":
        manifest.write_text(manifest.read_text()[:100])
    elif damage == "short file":
        train.write_bytes(content[:-10])
    else:
        train.unlink()
    assert read_manifest(first.path) is None
    again = prepared(tmp_path / "data.csv")
    assert (again.path / "train-00000.parquet").read_bytes() == content
    assert {path.name for path in first.path.parent.iterdir()} == {
        first.fingerprint,
        "checksums.json",
    }


def test_losing_the_race_to_the_same_data(
    prepared: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synthetic(tmp_path / "data.csv")
    make, winners = pipeline._make, []

    def make_late(*arguments: Any) -> dict[str, Any]:
        made = make(*arguments)
        monkeypatch.setattr(pipeline, "_make", make)
        winners.append(prepared(tmp_path / "data.csv").path.stat().st_ino)
        return made

    monkeypatch.setattr(pipeline, "_make", make_late)
    processed = prepared(tmp_path / "data.csv")
    assert [processed.path.stat().st_ino] == winners
    assert {path.name for path in processed.path.parent.iterdir()} == {
        processed.fingerprint,
        "checksums.json",
    }
    assert read_manifest(processed.path) is not None


def test_flipped_bits_are_noticed(prepared: Prepare) -> None:
    processed = prepared("ml-latest-small")
    train = processed.path / "train-00000.parquet"
    content = bytearray(train.read_bytes())
    content[len(content) // 2] ^= 0xFF
    train.write_bytes(content)
    with pytest.raises(
        ValueError,
        match=r"train-00000\.parquet: must be a whole Parquet file, but is damaged .* Delete its "
        r"folder",
    ):
        load(processed, "validation", negatives=True)


def test_an_error_leaves_nothing(prepared: Prepare, tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("1,1,5,1\n1,2,5,2\n2,3,5,1\n")
    with pytest.raises(ValueError, match="must have a positive in validation"):
        prepared(tmp_path / "data.csv")
    assert [path.name for path in (tmp_path / "experiments" / "processed").iterdir()] == [
        "checksums.json"
    ]


@pytest.mark.usefixtures("ray_here")
def test_the_protocol_that_the_data_bring(tmp_path: Path) -> None:
    (tmp_path / "toy.train.rating").write_text(
        "".join(f"{user}\t{item}\t1\t0\n" for user in range(3) for item in range(4))
    )
    (tmp_path / "toy.test.rating").write_text("0\t4\t1\t0\n1\t4\t1\t0\n")
    (tmp_path / "toy.test.negative").write_text("(0,4)\t5\t6\t7\n(1,4)\t5\t6\t7\n")
    small = {"data.source": str(tmp_path), "evaluation.k": 1, "evaluation.n_candidates": 3}
    config = replace_values(Config(), small)
    manifest = prepare(config, tmp_path / "experiments").manifest
    assert resolve(config, manifest).evaluation.protocol == "sampled"
    asked = replace_values(config, {"evaluation.protocol": "full"})
    assert resolve(asked, manifest).evaluation.protocol == "full"
    with pytest.raises(
        ValueError, match=r"evaluation\.k: must be at most the ranked candidates, 4, but got 5"
    ):
        resolve(replace_values(config, {"evaluation.k": 5}), manifest)


def test_workers_need_no_torch() -> None:
    code = "import sys, recsys.data.preprocessing.pipeline, ray.data; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_nothing_is_printed(
    prepared: Prepare, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    synthetic(tmp_path / "data.csv")
    prepared(tmp_path / "data.csv")
    assert capfd.readouterr() == ("", "")


def test_no_cluster_at_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    with pytest.raises(
        InputError,
        match=r"cluster\.address: must be a running Ray cluster, but got '127\.0\.0\.1:1'",
    ):
        connect(replace_values(Config(), {"cluster.address": "127.0.0.1:1"}))


def test_times_finer_than_seconds(prepared: Prepare, tmp_path: Path) -> None:
    time = pa.array(
        [1_600_000_000_000_003, 1_600_000_000_000_002, 1_600_000_000_000_001], pa.timestamp("us")
    )
    table = pa.table({"user": [1, 1, 1], "item": [1, 2, 3], "date": time})
    other = pa.table({"user": [2], "item": [4], "date": time[:1]})
    pq.write_table(pa.concat_tables([table, other]), tmp_path / "data.parquet")
    held_out = load(prepared(tmp_path / "data.parquet"), "test", negatives=False).held_out
    assert held_out is not None
    assert held_out.item.tolist() == [0]


@pytest.mark.usefixtures("ray_here")
def test_rows_are_shown_as_they_are_read(
    tmp_path: Path, ratings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    set_verbosity(VERBOSE)
    try:
        pipeline.prepare(replace_values(Config(), {"data.source": str(ratings)}), tmp_path)
    finally:
        set_verbosity(NORMAL)
    lines = capsys.readouterr().err.splitlines()
    # 60 users with 14 ratings each.
    assert [line for line in lines if line.startswith("Reading")] == [
        "Reading: task 1 of 1, 840 rows"
    ]
