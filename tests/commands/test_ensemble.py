"""An ensemble of a study's trials: selected, trained, scored, saved, recommended and logged."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from mlflow.tracking import MlflowClient

from recsys import evaluate, recommend, train
from recsys.config.schema import Config, replace_values
from recsys.data.preprocessing import pipeline
from recsys.data.processed import load
from recsys.evaluation.evaluate import evaluate as scores_of
from recsys.evaluation.scorers import ModelScorer, scorer_of
from recsys.final.choose import Choice
from recsys.final.ensemble import train_ensemble
from recsys.final.run import train as train_one
from recsys.serving import saved_model
from recsys.serving.saved_model import SavedModel
from tests.commands.in_process import answer, run
from tests.conftest import Tuned


@pytest.fixture(scope="module")
def candidates(ratings: Path, tuned: Tuned) -> list[Choice]:
    """Candidates of which the selection takes trials 11, 10 and 13, in this order, if it may.

    They stand for the trials of a study, of which trial 12 would be the best.
    """
    variants = [
        *(("mlp", "bce", 0.02, 12), ("inner_product", "bce", 0.05, 10)),
        *(("gmf", "softmax", 0.05, 11), ("inner_product", "squared", 0.05, 13)),
    ]
    found = []
    for model, loss, learning_rate, trial in variants:
        values = {
            "data.source": str(ratings),
            "tracking.uri": tuned.uri,
            "model.name": model,
            "model.embedding_dim": 8,
            "training.loss": loss,
            "training.learning_rate": learning_rate,
            "training.batch_size": 128,
            "training.max_epochs": 4,
        }
        config = replace_values(Config(), values)
        run_id = tuned.answer["mlflow"]["parent_run_id"]
        found.append(Choice(f"by-hand-{trial}", config, 4, trial, "by-hand", run_id, trial, 1.0))
    return found


@pytest.fixture(scope="module")
def joined(candidates: list[Choice], home: Path) -> dict[str, Any]:
    """The answer of a final training of an ensemble."""
    return train_ensemble(candidates, home, None, n_steps=3, validate=False)


@pytest.fixture(scope="module")
def saved(joined: dict[str, Any]) -> SavedModel:
    return saved_model.load(Path(joined["model"]))


def test_the_answer(joined: dict[str, Any], home: Path) -> None:
    assert list(joined) == [
        *("model", "protocol", "members", "selection", "single", "validation", "test"),
        *("baselines", "mlflow_run_id"),
    ]
    assert joined["model"] == str(home / "models" / "by-hand-ensemble")
    assert set(joined["baselines"]) == {"popularity", "popularity_recent", "ease"}
    chosen = [step["trial"] for step in joined["selection"]]
    assert [member["trial"] for member in joined["members"]] == list(dict.fromkeys(chosen))
    assert len(joined["members"]) > 1
    for member in joined["members"]:
        assert member["weight"] == chosen.count(member["trial"]) / len(chosen)
        assert (member["epochs"], member["seed"]) == (4, member["trial"])
    values = [step["value"] for step in joined["selection"]]
    assert values[-1] == joined["validation"]["ndcg_at_10"] > values[0]
    assert joined["single"]["trial"] == 12


def test_members_and_the_single_model_are_those_of_training_alone(
    joined: dict[str, Any], candidates: list[Choice], saved: SavedModel, home: Path, tmp_path: Path
) -> None:
    alone: dict[int | None, tuple[dict[str, float], SavedModel]] = {}
    for choice in candidates:
        found = train_one(choice, home, tmp_path / "m", n_seeds=1, validate=False)
        alone[choice.trial] = found["test"], saved_model.load(tmp_path / "m")
    assert joined["single"]["test"] == alone[12][0]
    total = np.zeros((60, 80))
    for member, config in zip(joined["members"], saved.members, strict=True):
        _, one = alone[member["trial"]]
        assert (config.model, config.training) == (one.config.model, one.config.training)
        scores = ModelScorer(one.model, 80).score_all(torch.arange(60)).double().numpy()
        deviations = (scores - scores.mean(1)[:, None]) / scores.std(1)[:, None]
        total += member["weight"] * deviations
    scores = ModelScorer(saved.model, 80).score_all(torch.arange(60)).numpy()
    np.testing.assert_allclose(scores, total, atol=1e-4)


def test_both_scorings_of_test_are_noted(joined: dict[str, Any], home: Path) -> None:
    lines = [json.loads(line) for line in (home / "test_scores.jsonl").read_text().splitlines()]
    by_model = {line["model"]: line["test"] for line in lines if line["command"] == "train"}
    assert by_model[joined["model"]] == joined["test"]
    assert by_model["by-hand/12"] == joined["single"]["test"]


def test_evaluation_reproduces_the_scores(joined: dict[str, Any], home: Path, tuned: Tuned) -> None:
    found = answer(evaluate.main, "--model", "by-hand-ensemble", "--dir", home)
    assert found == {"protocol": "full", "test": joined["test"]}
    client = MlflowClient(tracking_uri=tuned.uri)
    experiment = client.get_experiment_by_name("recsys")
    assert experiment is not None
    kind = "tags.kind = 'evaluation' and tags.`mlflow.runName` = 'by-hand-ensemble evaluation'"
    (logged,) = client.search_runs([experiment.experiment_id], kind)
    assert logged.data.tags["model"] == "ensemble"
    members = [f"{one['model']} {one['loss']}" for one in joined["members"]]
    assert logged.data.params == {"members": ", ".join(members)}


def test_the_run_has_the_selection_and_a_model_that_recommends(
    joined: dict[str, Any], saved: SavedModel, tuned: Tuned
) -> None:
    client = MlflowClient(tracking_uri=tuned.uri)
    logged = client.get_run(joined["mlflow_run_id"])
    assert logged.data.tags["mlflow.parentRunId"] == tuned.answer["mlflow"]["parent_run_id"]
    assert logged.data.tags["mlflow.runName"] == "by-hand-ensemble"
    assert (logged.data.tags["kind"], logged.data.tags["model"]) == ("training", "ensemble")
    assert logged.data.metrics == {
        f"{split}_{name}": value
        for split in ("validation", "test")
        for name, value in joined[split].items()
    }
    text = mlflow.artifacts.load_text(f"{logged.info.artifact_uri}/selection.json")
    assert [row[0] for row in json.loads(text)["data"]] == [
        step["step"] for step in joined["selection"]
    ]
    mlflow.set_tracking_uri(tuned.uri)
    served = mlflow.pyfunc.load_model(f"runs:/{joined['mlflow_run_id']}/model")
    mlflow.set_tracking_uri(None)  # type: ignore[arg-type]
    assert served.metadata.signature is not None
    found = served.predict(pd.DataFrame({"user_id": [42, 7]}), params={"k": 3})
    by_command = answer(
        recommend.main, "--model", joined["model"], "--user", 42, "--user", 7, "-k", 3
    )
    rows = [item for items in by_command.values() for item in items]
    assert list(found["item_id"]) == [row["item_id"] for row in rows]
    assert list(found["score"]) == pytest.approx([row["score"] for row in rows], abs=1e-6)
    # The best unseen item by the scores of the saved model itself.
    scores = ModelScorer(saved.model, 80).score_all(torch.tensor([42]))[0].numpy()
    scores[saved.seen.items[saved.seen.offsets[42] : saved.seen.offsets[43]]] = -np.inf
    assert by_command["42"][0]["item_id"] == saved.item_ids[int(scores.argmax())].as_py()


@pytest.fixture(scope="module")
def unread(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the study and the processed data, of which test cannot be read."""
    folder = tmp_path_factory.mktemp("unread")
    for name in ("studies", "processed"):
        shutil.copytree(home / name, folder / name)
    # Files of the same size with nothing but zeros: opening one is an error.
    for file in (folder / "processed").glob("*/test-*.parquet"):
        file.write_bytes(bytes(file.stat().st_size))
    return folder


def test_validation_never_reads_test(
    candidates: list[Choice], joined: dict[str, Any], unread: Path
) -> None:
    found = train_ensemble(candidates, unread, None, n_steps=3, validate=True)
    assert found["model"] == str(unread / "models" / "by-hand-ensemble-validate")
    assert "test" not in found
    # The same members, whether or not test is scored afterwards.
    for name in ("members", "selection", "validation"):
        assert found[name] == joined[name]
    assert found["single"].items() < joined["single"].items()
    # The saved members are those that were selected.
    saved = saved_model.load(Path(found["model"]))
    data = load(pipeline.prepare(saved.config, unread), "validation", negatives=False)
    assert scores_of(scorer_of(saved.model, data), data, saved.config) == found["validation"]
    assert not (unread / "test_scores.jsonl").exists()


def test_the_command(unread: Path, store: list[str], tuned: Tuned) -> None:
    argv = ["--best-of", "first", "--ensemble", 3, "--dir", unread, *store]
    code, _, err = run(train.main, *argv)
    assert code == 2
    assert re.search(r"test-00000\.parquet: must be a whole Parquet file", err)
    found = answer(train.main, *argv, "--validate")
    assert found["model"] == str(unread / "models" / "first-ensemble-validate")
    best = tuned.answer["best"]
    assert found["single"]["trial"] == int(best["trial"])
    # Trained again on train alone: the value of the search, to the last bit.
    assert found["single"]["validation"]["ndcg_at_10"] == best["value"]
    code, out, err = run(train.main, *argv, "--validate")
    assert code == 0
    assert re.search(r"^Trains 6 trials on train \(about 1 min in the search\)", err, re.MULTILINE)
    first = found["selection"][0]
    assert re.search(rf"1 +{first['trial']} +{first['model']} .* {first['value']:.4f}", out)
    assert re.search(rf"validation \(full\) +ensemble +trial {best['trial']} +popularity", out)
    scores = (found["validation"], found["single"]["validation"], *found["baselines"].values())
    row = " +".join(f"{values['ndcg_at_10']:.4f}" for values in scores)
    assert re.search(rf"ndcg_at_10 +{row}", out)


def test_the_config_of_an_ensemble_is_none_to_train(joined: dict[str, Any], home: Path) -> None:
    path = Path(joined["model"]) / "config.yaml"
    code, _, err = run(train.main, "--config", path, "--dir", home)
    assert code == 2
    assert "config.yaml: members: must be a config path" in err
