"""Recommendations from a model that the train command saved, by the command and by MLflow."""

import json
import re
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys import recommend, train
from recsys.data.sources.catalog import find_embedded
from tests.commands.in_process import answer, run
from tests.conftest import Tuned


@pytest.fixture(scope="module")
def everyone(trained: dict[str, Any], home: Path) -> pd.DataFrame:
    """Five items for each user, as `--all-users --output` writes them."""
    output = home / "out" / "recs.parquet"
    found = answer(
        recommend.main, "--model", trained["model"], "--all-users", "-k", 5, "--output", output
    )
    assert found == {"output": str(output), "users": 60, "rows": 300}
    return pd.read_parquet(output)


def test_recommendations_to_all(everyone: pd.DataFrame, ratings: Path) -> None:
    assert list(everyone.columns) == ["user_id", "rank", "item_id", "score", "title"]
    assert list(everyone["user_id"].unique()) == list(range(60))
    seen = set(pd.read_csv(ratings)[["user_id", "item_id"]].itertuples(index=False, name=None))
    recommended = list(everyone[["user_id", "item_id"]].itertuples(index=False, name=None))
    assert not seen & set(recommended)
    assert len(set(recommended)) == 300
    for _, rows in everyone.groupby("user_id"):
        assert list(rows["rank"]) == [1, 2, 3, 4, 5]
        assert rows["score"].is_monotonic_decreasing
    # A user's taste is its number modulo 4, as an item's kind is: chance would be a quarter.
    assert (everyone["user_id"] % 4 == everyone["item_id"] % 4).mean() > 0.5
    assert everyone["title"].isna().all()


def test_recommendations_to_some(trained: dict[str, Any], everyone: pd.DataFrame) -> None:
    found = answer(
        recommend.main, "--model", trained["model"], "--user", 42, "--user", "7", "-k", 5
    )
    assert list(found) == ["42", "7"]
    for user_id, items in found.items():
        rows = everyone[everyone["user_id"] == int(user_id)]
        assert [item["item_id"] for item in items] == list(rows["item_id"])
        assert [item["score"] for item in items] == pytest.approx(list(rows["score"]), abs=1e-6)
        assert all(
            list(item) == ["item_id", "score", "title"] and item["title"] is None for item in items
        )
    text = run(recommend.main, "--model", trained["model"], "--user", 42, "-k", 1).out
    assert re.search(rf"user 42\n.*rank.*\n +1 +{found['42'][0]['item_id']} ", text)


def test_unknown_users_are_named(trained: dict[str, Any]) -> None:
    code, out, err = run(
        recommend.main, "--model", trained["model"], "--user", 7, "--user", 600, "--user", "x"
    )
    assert (code, out) == (2, "")
    assert (
        err == "error: --user: must be a user of the training data, but got 600, x. "
        "The model knows 60 users.\n"
    )


def test_recommendations_from_histories(
    ratings: Path, ray_here: None, store: list[str], tmp_path: Path
) -> None:
    (tmp_path / "als.yaml").write_text(
        f"data: {{source: {ratings}}}\n"
        "model: {name: inner_product, embedding_dim: 8}\n"
        "training: {loss: squared, l2: 0.1, max_epochs: 5}\n"
    )
    answer(train.main, "--config", tmp_path / "als.yaml", "--dir", tmp_path, *store)
    # Final training had all of user 5 but the last positive, which is test.
    rows = pd.read_csv(ratings)
    own = rows[rows["user_id"] == 5]
    last = own[own["rating"] >= 4].index[-1]
    own.drop(last).to_csv(tmp_path / "own.csv", index=False)
    argv = ["--model", "als", "--dir", tmp_path, "-k", 30]
    (known,) = answer(recommend.main, *argv, "--user", 5).values()
    (folded,) = answer(recommend.main, *argv, "--history", tmp_path / "own.csv").values()
    scores = {item["item_id"]: item["score"] for item in folded}
    expected = {item["item_id"]: item["score"] for item in known}
    held_out = rows["item_id"][last]
    assert held_out not in expected
    both = expected.keys() & scores.keys()
    assert len(both) >= 29
    assert {item: scores[item] for item in both} == pytest.approx(
        {item: expected[item] for item in both}, abs=1e-4
    )
    file = tmp_path / "new.csv"
    file.write_text("user_id,item_id\nnew,3\nnew,7\nnew,11\nnobody,unheard-of\n")
    argv = ["--model", "als", "--dir", tmp_path, "--history", file, "-k", 4]
    code, out, err = run(recommend.main, *argv, "--json")
    assert code == 0
    found = json.loads(out)
    assert list(found) == ["new"]
    items = [item["item_id"] for item in found["new"]]
    # A taste is a user's number modulo 4, as an item's kind is.
    assert {item % 4 for item in items} == {3}
    assert not {3, 7, 11} & set(items)
    assert "Ignored interactions with items that are not in the data: 1." in err
    assert "Left out users without a positive on an item of the training data: 1." in err
    file.write_text("user_id,item_id\nnobody,unheard-of\n")
    code, out, err = run(recommend.main, *argv)
    assert (code, out) == (2, "")
    assert "error: --history: must have a positive with an item of the training data" in err


def test_a_model_trained_by_gradient_descent_takes_no_history(
    trained: dict[str, Any], ratings: Path
) -> None:
    code, _, err = run(recommend.main, "--model", trained["model"], "--history", ratings)
    assert code == 2
    assert err.startswith("error: --model: must read histories, or be trained by least squares")


def test_mlflow_serves_the_same(
    trained: dict[str, Any], tuned: Tuned, everyone: pd.DataFrame
) -> None:
    mlflow.set_tracking_uri(tuned.uri)
    served = mlflow.pyfunc.load_model(f"runs:/{trained['mlflow_run_id']}/model")
    found = served.predict(pd.DataFrame({"user_id": [3, 59]}), params={"k": 5})
    expected = everyone[everyone["user_id"].isin([3, 59])].reset_index(drop=True)
    pd.testing.assert_frame_equal(found[["user_id", "item_id"]], expected[["user_id", "item_id"]])
    assert list(found["score"]) == pytest.approx(list(expected["score"]), abs=1e-6)
    assert len(served.predict(pd.DataFrame({"user_id": [3]}))) == 10


def test_titles_of_the_embedded_data(ray_here: None, store: list[str], tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(
        "model: {name: inner_product, embedding_dim: 4}\n"
        "training: {max_epochs: 1, learning_rate: 0.01}\n"
    )
    trained = answer(train.main, "--config", tmp_path / "c.yaml", "--dir", tmp_path, *store)
    (items,) = answer(recommend.main, "--model", "c", "--user", 42, "--dir", tmp_path).values()
    assert len(items) == 10
    tables = {path.stem: pq.read_table(path) for path in find_embedded().glob("*.parquet")}
    movies: pa.Table = next(table for table in tables.values() if "title" in table.column_names)
    ratings: pa.Table = next(table for table in tables.values() if "rating" in table.column_names)
    names = dict(zip(movies[0].to_pylist(), movies["title"].to_pylist(), strict=True))
    assert all(item["title"] == names[item["item_id"]] for item in items)
    watched = {
        item
        for user, item in zip(ratings[0].to_pylist(), ratings[1].to_pylist(), strict=True)
        if user == 42
    }
    assert watched
    assert not watched & {item["item_id"] for item in items}
    assert trained["test"]["ndcg_at_10"] > 0
