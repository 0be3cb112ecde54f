"""From a study to a saved model and its scores, by the train and evaluate commands."""

import json
import os
import re
import shutil
import statistics
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from mlflow.tracking import MlflowClient

from recsys import evaluate, train
from recsys.config.files import load_config
from recsys.config.schema import Config, replace_values
from recsys.search.record.running_trial import trial_seed
from recsys.serving import model_folder, saved_model
from recsys.tracking.connection import open_tracking
from recsys.tracking.study_runs import open_study_runs
from tests.commands.in_process import answer, run
from tests.conftest import Tuned
from tests.small_search import open_optuna

METRICS = {"ndcg_at_10", "ndcg_at_10_se", "hit_rate_at_10", "mrr_at_10", "recall_at_10"}


def scorings(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "test_scores.jsonl").read_text().splitlines()]


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
    assert set(trained["baselines"]) == {"popularity", "popularity_recent", "ease"}
    assert set(trained["baselines"]["popularity"]) == METRICS
    # The data have four tastes, which a model can learn and popularity cannot.
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
    # The weights are the first seed's, and so are the scores.
    assert metrics["test"] == trained["seeds"][0]["test"]
    assert metrics["epochs"] == trained["epochs"]


def test_training_again_gives_the_same_scores(
    trained: dict[str, Any], home: Path, store: list[str], tmp_path: Path
) -> None:
    best = ["--config", home / "studies" / "first" / "best.yaml", "--out", tmp_path / "m"]
    again = answer(train.main, "--best-of", "first", "--dir", home, "--out", tmp_path / "n", *store)
    assert again["test"] == again["seeds"][0]["test"] == trained["seeds"][0]["test"]
    assert again["model"] == str(tmp_path / "n")
    # A config file has no trial: the seed is the study's, and without patience all epochs count.
    no_patience = ["--set", "training.patience=null"]
    own = answer(train.main, *best, *no_patience, "--dir", home, *store)
    assert (own["epochs"], own["seeds"][0]["seed"]) == (4, 0)


def test_every_scoring_of_test_is_noted(trained: dict[str, Any], home: Path) -> None:
    found = [
        line
        for line in scorings(home)
        if line["model"] == trained["model"] and line["command"] == "train"
    ]
    assert [list(line) for line in found] == [["time", "command", "model", "test"]] * 2
    assert [line["test"] for line in found] == [one["test"] for one in trained["seeds"]]


def test_evaluation_reproduces_the_scores(
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


def test_verbose_training_prints_a_line_per_epoch(
    home: Path, store: list[str], tmp_path: Path
) -> None:
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
        r"error: train_loss, epoch \d+: must be finite, but got (nan|inf)\. "
        r"Lower training\.learning_rate\.\n",
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
    # Files of the same size with nothing but zeros: opening one is an error.
    for file in (tmp_path / "processed").glob("*/test-*.parquet"):
        file.write_bytes(bytes(file.stat().st_size))
    places = ["--best-of", "first", "--dir", tmp_path, *store]
    validated = answer(train.main, *places, "--validate")
    # All 840 interactions but the test item of each of the 60 users.
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
    trials = (
        pd.read_parquet(tuned.study_folder / "trials.parquet")
        .drop_duplicates("state")
        .set_index("trial")
    )
    assert set(trials["state"]) == {"complete", "pruned"}
    for trial, row in trials.iterrows():
        found = answer(train.main, "--trial", f"first/{trial}", "--validate", "--dir", home, *store)
        assert found["epochs"] == row["epoch"]
        assert found["validation"] == pytest.approx(
            {name: row[f"val_{name}"] for name in METRICS}, abs=1e-6
        )


def test_a_setting_overrides_the_chosen_config(
    home: Path, store: list[str], tmp_path: Path
) -> None:
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
        "training: {max_epochs: 60, patience: 2, learning_rate: 0.1, batch_size: 128}\n"
        "model: {name: gmf}\n"
    )
    argv = ["--config", tmp_path / "c.yaml", "--data", ratings, "--dir", home, *store]
    validated = answer(train.main, *argv, "--validate")
    found = answer(train.main, *argv)
    assert found["epochs"] == validated["epochs"] < 60
    assert found["model"] == str(home / "models" / "c")


def test_the_run_is_nested_under_the_study(trained: dict[str, Any], tuned: Tuned) -> None:
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


def test_a_command_leaves_no_tracking_uri_in_its_process(home: Path, store: list[str]) -> None:
    # MLflow writes the store of a logged model into the environment, which later commands read.
    answer(train.main, "--best-of", "first", "--dir", home, "--out", home / "again", *store)
    assert "MLFLOW_TRACKING_URI" not in os.environ


def test_no_file_is_a_pickle(trained: dict[str, Any], tuned: Tuned, home: Path) -> None:
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
