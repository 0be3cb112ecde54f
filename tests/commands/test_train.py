"""From a study to a model and its recommendations, by the commands."""

import json
import os
import re
import shutil
import statistics
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mlflow.tracking import MlflowClient

from recsys import evaluate, recommend, train
from recsys.config.files import load_config
from recsys.config.schema import Config, replace_values
from recsys.data.sources.catalog import find_embedded
from recsys.search.record.record import trial_seed
from recsys.serving import model_folder, saved_model
from recsys.tracking.connection import open_tracking
from recsys.tracking.study_runs import open_study_runs
from tests.commands.in_process import answer, run
from tests.conftest import Tuned
from tests.small_search import open_optuna

METRICS = {"ndcg_at_10", "hit_rate_at_10", "mrr_at_10", "recall_at_10"}


def scorings(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "test_scores.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def home(tuned: Tuned, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of this module's own with the study and the processed data in it; MLflow and artifacts stay where they were."""
    folder = tmp_path_factory.mktemp("home")
    for name in ("studies", "processed"):
        shutil.copytree(tuned.folder / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def store(tuned: Tuned) -> list[str]:
    return ["--set", f"tracking.uri={tuned.uri}"]


@pytest.fixture(scope="module")
def trained(home: Path, store: list[str]) -> dict[str, Any]:
    """The best trial's final training with two seeds."""
    return answer(train.main, "--best-of", "first", "--seeds", 2, "--dir", home, *store)


def test_the_answer(trained: dict[str, Any], home: Path, tuned: Tuned) -> None:
    assert list(trained) == [
        "model",
        "epochs",
        "protocol",
        "test",
        "seeds",
        "baselines",
        "mlflow_run_id",
    ]
    best = tuned.answer["best"]
    assert trained["model"] == str(home / "models" / "first")
    assert (trained["epochs"], trained["protocol"]) == (best["epoch"], "full")
    first = trial_seed(0, int(best["trial"]))
    assert [one["seed"] for one in trained["seeds"]] == [first, first + 1]
    for name in METRICS:
        assert trained["test"][name] == statistics.fmean(
            one["test"][name] for one in trained["seeds"]
        )
    assert set(trained["test"]) == METRICS
    assert trained["seeds"][0]["test"] != trained["seeds"][1]["test"]
    assert set(trained["baselines"]) == {"popularity", "ease"}
    assert set(trained["baselines"]["popularity"]) == METRICS
    # Four tastes that the model can learn and popularity can't.
    assert trained["test"]["ndcg_at_10"] > trained["baselines"]["popularity"]["ndcg_at_10"]


def test_the_model(trained: dict[str, Any], tuned: Tuned) -> None:
    folder = Path(trained["model"])
    assert {path.name for path in folder.iterdir()} == set(model_folder.FILES)
    config, best = (
        load_config(folder / "config.yaml"),
        load_config(tuned.study_folder / "best.yaml"),
    )
    assert (config.model, config.training, config.data) == (best.model, best.training, best.data)
    metrics = json.loads((folder / "metrics.json").read_text())
    # The first seed's weights are kept, so these are the figures that belong to them.
    assert metrics["test"] == trained["seeds"][0]["test"]
    assert metrics["epochs"] == trained["epochs"]


def test_the_same_again_is_the_same(
    trained: dict[str, Any], home: Path, store: list[str], tmp_path: Path
) -> None:
    best = ["--config", home / "studies" / "first" / "best.yaml", "--out", tmp_path / "m"]
    again = answer(train.main, "--best-of", "first", "--dir", home, "--out", tmp_path / "n", *store)
    assert again["test"] == again["seeds"][0]["test"] == trained["seeds"][0]["test"]
    assert again["model"] == str(tmp_path / "n")
    # A config without a study has a seed and a length of its own: the study's seed, all epochs.
    own = answer(train.main, *best, "--dir", home, *store)
    assert (own["epochs"], own["seeds"][0]["seed"]) == (4, 0)


def test_every_look_at_test_is_written_down(trained: dict[str, Any], home: Path) -> None:
    found = [
        line
        for line in scorings(home)
        if line["model"] == trained["model"] and line["command"] == "train"
    ]
    assert [list(line) for line in found] == [["time", "command", "model", "test"]] * 2
    assert [line["test"] for line in found] == [one["test"] for one in trained["seeds"]]


def test_evaluation_reproduces_the_figures(
    trained: dict[str, Any], home: Path, tuned: Tuned
) -> None:
    found = answer(evaluate.main, "--model", "first", "--dir", home)
    assert found == {"protocol": "full", "test": trained["seeds"][0]["test"]}
    assert scorings(home)[-1]["command"] == "evaluate"
    assert scorings(home)[-1]["test"] == found["test"]
    client = MlflowClient(tracking_uri=tuned.uri)
    experiment = client.get_experiment_by_name("recsys")
    assert experiment is not None
    kind = "tags.kind = 'evaluation' and tags.`mlflow.runName` = 'first evaluation'"
    (logged,) = client.search_runs([experiment.experiment_id], kind)
    assert logged.data.metrics == {f"test_{name}": value for name, value in found["test"].items()}
    by_path = answer(evaluate.main, "--model", trained["model"], "--dir", home)
    assert by_path == found
    text = run(evaluate.main, "--model", "first", "--dir", home).out
    assert f"ndcg_at_10      {found['test']['ndcg_at_10']:.4f}" in text


def test_each_epoch_has_a_line_if_asked_for(home: Path, store: list[str], tmp_path: Path) -> None:
    asked = [
        "--best-of",
        "first",
        "--dir",
        home,
        "--out",
        tmp_path / "m",
        "--validate",
        "--json",
        *store,
    ]
    code, out, err = run(train.main, *asked, "-v")
    assert code == 0
    n_epochs, seed = json.loads(out)["epochs"], json.loads(out)["seeds"][0]["seed"]
    lines = [
        line.partition(", train_loss ") for line in err.splitlines() if line.startswith("Training")
    ]
    assert [line for line, *_ in lines] == [
        f"Training with seed {seed}: epoch {n} of {n_epochs}" for n in range(1, n_epochs + 1)
    ]
    assert all(re.fullmatch(r"\d+\.\d{4}, val_ndcg_at_10 0\.\d{4}", values) for *_, values in lines)
    for flags in ([], ["-q"]):
        code, again, err = run(train.main, *asked, *flags)
        assert (code, json.loads(again)["validation"], err) == (
            0,
            json.loads(out)["validation"],
            "",
        )


@pytest.mark.parametrize("flags", [[], ["--validate"]])
def test_a_training_that_diverges(
    home: Path, store: list[str], tmp_path: Path, flags: list[str]
) -> None:
    before = scorings(home) if (home / "test_scores.jsonl").exists() else []
    asked = [
        "--best-of",
        "first",
        "--set",
        "training.learning_rate=1e30",
        "--out",
        tmp_path / "m",
        "--dir",
        home,
        *flags,
    ]
    code, out, err = run(train.main, *asked, *store)
    assert (code, out) == (2, "")
    assert re.fullmatch(
        r"error: train_loss, epoch \d+: must be finite, but got (nan|inf)\. Lower training\.learning_rate\.\n",
        err,
    ), err
    assert not (tmp_path / "m").exists()
    assert (scorings(home) if before else []) == before


def test_validation_repeats_the_trial(home: Path, store: list[str], tuned: Tuned) -> None:
    before = len(scorings(home)) if (home / "test_scores.jsonl").exists() else 0
    found = answer(train.main, "--best-of", "first", "--validate", "--dir", home, *store)
    best = tuned.answer["best"]
    # Train alone, the trial's own seed and epochs: the value of the search, to the last bit.
    assert found["validation"]["ndcg_at_10"] == best["value"]
    assert found["epochs"] == best["epoch"]
    assert "test" not in found
    assert list(found["seeds"][0]) == ["seed", "validation"]
    assert found["model"] == str(home / "models" / "first-validate")
    assert (len(scorings(home)) if before else 0) == before


def test_validation_never_reads_test(home: Path, store: list[str], tmp_path: Path) -> None:
    for name in ("studies", "processed"):
        shutil.copytree(home / name, tmp_path / name)
    # Files of the same size without a readable byte: whoever opens them finds out.
    for file in (tmp_path / "processed").glob("*/test-*.parquet"):
        file.write_bytes(bytes(file.stat().st_size))
    places = ["--best-of", "first", "--dir", tmp_path, *store]
    validated = answer(train.main, *places, "--validate")
    # Of 10 to 14 positives and the low ratings, all but the test item of each user.
    seen = saved_model.load(Path(validated["model"])).seen
    assert len(seen.items) == 840 - 60
    code, out, err = run(train.main, *places)
    assert (code, out) == (2, "")
    assert re.fullmatch(
        r"error: .*test-00000\.parquet: must be a whole Parquet file, but is damaged .*\n", err
    )
    assert not (tmp_path / "test_scores.jsonl").exists()


def test_a_trial_by_its_number(home: Path, store: list[str], tuned: Tuned) -> None:
    found = answer(train.main, "--trial", "first/1", "--validate", "--dir", home, *store)
    values = open_optuna(tuned.study_folder).trials[1].intermediate_values
    assert found["validation"]["ndcg_at_10"] == max(values.values())
    assert found["model"] == str(home / "models" / "first-1-validate")


def test_every_metric_of_a_trial_is_reproduced(home: Path, store: list[str], tuned: Tuned) -> None:
    # One that was stopped early, and one that was not.
    told = (
        pd.read_parquet(tuned.study_folder / "trials.parquet")
        .drop_duplicates("state")
        .set_index("trial")
    )
    assert set(told["state"]) == {"complete", "pruned"}
    for trial, row in told.iterrows():
        found = answer(train.main, "--trial", f"first/{trial}", "--validate", "--dir", home, *store)
        assert found["epochs"] == row["epoch"]
        assert found["validation"] == pytest.approx(
            {name: row[f"val_{name}"] for name in METRICS}, abs=1e-6
        )


def test_a_setting_goes_over_the_choice(home: Path, store: list[str], tmp_path: Path) -> None:
    sets = [
        "--set",
        "model.embedding_dim=5",
        "--set",
        "evaluation.k=[3, 7]",
        "--set",
        "training.resample_negatives=false",
    ]
    found = answer(
        train.main, "--best-of", "first", "--dir", home, "--out", tmp_path / "m", *sets, *store
    )
    assert load_config(tmp_path / "m" / "config.yaml").model.embedding_dim == 5
    assert {"ndcg_at_3", "ndcg_at_7"} < set(found["test"])
    assert answer(evaluate.main, "--model", tmp_path / "m", "--dir", home)["test"] == found["test"]


def test_patience_finds_the_number_of_epochs(
    home: Path, store: list[str], tmp_path: Path, ratings: Path
) -> None:
    (tmp_path / "c.yaml").write_text(
        "training: {max_epochs: 60, patience: 2, learning_rate: 0.1, batch_size: 128}\nmodel: {name: gmf}\n"
    )
    argv = ["--config", tmp_path / "c.yaml", "--data", ratings, "--dir", home, *store]
    validated = answer(train.main, *argv, "--validate")
    found = answer(train.main, *argv)
    assert found["epochs"] == validated["epochs"] < 60
    assert found["model"] == str(home / "models" / "c")


def test_the_run_lies_under_the_study(trained: dict[str, Any], tuned: Tuned) -> None:
    logged = MlflowClient(tracking_uri=tuned.uri).get_run(trained["mlflow_run_id"])
    assert logged.info.status == "FINISHED"
    assert logged.data.tags["mlflow.parentRunId"] == tuned.answer["mlflow"]["parent_run_id"]
    assert (logged.data.tags["kind"], logged.data.tags["study"]) == ("training", "first")
    assert logged.data.metrics == {f"test_{name}": value for name, value in trained["test"].items()}
    assert logged.data.params["model.name"] == tuned.answer["best"]["params"]["model.name"]


def test_another_study_of_the_same_name(
    home: Path, store: list[str], tuned: Tuned, tmp_path: Path
) -> None:
    # Searched later, below another --dir.
    config = replace_values(Config(), {"tracking.uri": tuned.uri})
    (tmp_path / "studies" / "first").mkdir(parents=True)
    others = open_study_runs(
        config,
        tmp_path,
        tmp_path / "studies" / "first",
        open_tracking(config, tmp_path),
        lambda *_: None,
    )
    others.start({}, {})
    others.close()
    client = MlflowClient(tracking_uri=tuned.uri)
    assert others.run_id is not None
    assert client.get_run(others.run_id).data.tags["study"] == "first"
    for choice in ("--best-of first", "--trial first/1"):
        trained = answer(
            train.main,
            *choice.split(),
            "--validate",
            "--dir",
            home,
            "--out",
            tmp_path / "m",
            *store,
        )
        parent = client.get_run(trained["mlflow_run_id"]).data.tags["mlflow.parentRunId"]
        assert parent == tuned.answer["mlflow"]["parent_run_id"] != others.run_id


def test_a_store_without_the_run_of_the_study(
    home: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = f"sqlite:///{tmp_path / 'other.db'}"
    places = ["--dir", home, "--out", tmp_path / "m", "--set", f"tracking.uri={store}"]
    trained = answer(train.main, "--best-of", "first", "--validate", *places)
    (warned,) = [
        record.getMessage() for record in caplog.records if record.name.startswith("recsys")
    ]
    assert re.fullmatch(
        r"MLflow has no run [0-9a-f]{32} of study first: the training's run has no parent\.", warned
    )
    logged = MlflowClient(tracking_uri=store).get_run(trained["mlflow_run_id"])
    assert "mlflow.parentRunId" not in logged.data.tags


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
        err
        == "error: --user: must be a user of the training data, but got 600, x. The model knows 60 users.\n"
    )


def test_a_command_leaves_no_store_behind_in_its_process(home: Path, store: list[str]) -> None:
    # MLflow writes the store of a logged model into the environment, by which later commands would go.
    answer(train.main, "--best-of", "first", "--dir", home, "--out", home / "again", *store)
    assert "MLFLOW_TRACKING_URI" not in os.environ


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


def test_nothing_anywhere_unpickles(trained: dict[str, Any], tuned: Tuned, home: Path) -> None:
    assert trained["model"]
    files = [
        path for folder in (tuned.folder, home) for path in folder.rglob("*") if path.is_file()
    ]
    assert any(path.name == "MLmodel" for path in files)
    assert any(path.suffix == ".safetensors" for path in files)
    assert not [
        path
        for path in files
        if path.suffix in {".pkl", ".pickle", ".pt", ".pth", ".joblib", ".cloudpickle"}
    ]
    # The first byte of any pickle since protocol 2 is 0x80, the second its protocol.
    assert not [path for path in files if re.match(rb"\x80[\x02-\x05]", path.open("rb").read(2))]
    assert not [path for path in files if path.name.endswith(".tmp")]


def test_titles_of_the_embedded_data(ray_here: None, store: list[str], tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(
        "model: {name: inner_product, embedding_dim: 4}\ntraining: {max_epochs: 1, learning_rate: 0.01}\n"
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
