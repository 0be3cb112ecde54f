"""One search by the tune command: its answer, its folder, its Optuna study, its MLflow runs."""

import json
import os
import re
import signal
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import pandas as pd
import pytest
from mlflow.tracking import MlflowClient
from optuna.trial import TrialState
from ray.tune.experiment import Trial

from recsys import train, tune
from recsys.config.files import dump_yaml, load_config
from recsys.config.schema import Config, config_paths, get_value, replace_values
from recsys.config.yaml_text import parse_yaml
from recsys.search import session
from recsys.search.record.running_trial import trial_seed
from recsys.search.texts import plan_text
from recsys.search.tuning.mlflow_callback import StudyCallback
from tests.commands import in_process
from tests.conftest import Tuned
from tests.small_search import SPACE, logged_steps, logged_trials, open_optuna, ratings_csv

DEFAULTS = {"training.max_epochs": 4, "training.batch_size": 128}


def new_study(tuned: Tuned, ratings: Path, folder: Path) -> list[str]:
    """Return the flags of a new study `s` in `folder`, over the space of `tuned`."""
    space = str(tuned.folder / "space.yaml")
    study = ["--dir", str(folder), "--name", "s"]
    return ["--space", space, "--data", str(ratings), *study, "--concurrent", "1", "--json"]


def test_the_answer(tuned: Tuned) -> None:
    answer = tuned.answer
    assert list(answer) == [
        "study", "counts", "trials", "best", "wall_seconds", "busy_seconds", "concurrency",
        "mlflow", "total_seconds",
    ]  # fmt: skip
    assert (answer["study"], answer["concurrency"]) == ("first", 2)
    assert list(answer["counts"]) == ["complete", "pruned", "failed", "diverged", "unfinished"]
    assert [list(trial) for trial in answer["trials"]] == [
        ["id", "state", "epochs", "value", "standard_error", "on_all_users", "params", "nodes"]
    ] * 7
    assert [trial["id"] for trial in answer["trials"]] == ["0", "1", "2", "3", "4", "5", "6"]
    found = Counter(trial["state"] for trial in answer["trials"])
    assert answer["counts"] == {state: found[state] for state in answer["counts"]}
    # ASHA has stopped some of seven, and never the best.
    assert found["complete"] >= 1
    assert found["pruned"] >= 1
    assert found["complete"] + found["pruned"] == 7
    assert 0 < answer["busy_seconds"] <= 2 * answer["wall_seconds"] < 2 * answer["total_seconds"]
    assert answer["mlflow"]["tracking_uri"] == tuned.uri
    assert answer["mlflow"]["experiment"] == "recsys"


def test_epochs_by_state(tuned: Tuned) -> None:
    # Rungs of 4 epochs are 1 and 3.
    for trial in tuned.answer["trials"]:
        assert trial["epochs"] in {"complete": (4,), "pruned": (1, 3)}[trial["state"]]


def test_the_best_is_the_largest_value(tuned: Tuned) -> None:
    best, trials = tuned.answer["best"], tuned.answer["trials"]
    assert list(best) == [
        "trial", "value", "standard_error", "on_all_users", "epoch", "params", "config"
    ]  # fmt: skip
    assert best["value"] == max(trial["value"] for trial in trials)
    assert (best["value"], best["params"]) == next(
        (t["value"], t["params"]) for t in trials if t["id"] == best["trial"]
    )
    values = open_optuna(tuned.study_folder).trials[int(best["trial"])].intermediate_values
    assert values[best["epoch"]] == best["value"] == max(values.values())


def test_the_best_config_is_a_complete_config_file(tuned: Tuned) -> None:
    best = tuned.answer["best"]
    path = Path(best["config"])
    assert path == tuned.study_folder / "best.yaml"
    config = load_config(path)
    assert {name: get_value(config, name) for name in best["params"]} == best["params"]
    assert {name: get_value(config, name) for name in DEFAULTS} == DEFAULTS
    tree = parse_yaml(path.read_text(), "")
    assert {f"{section}.{name}" for section, names in tree.items() for name in names} == set(
        config_paths()
    )


def test_the_warm_start_and_the_default_come_first(tuned: Tuned) -> None:
    warm, default = (trial["params"] for trial in tuned.answer["trials"][:2])
    # The space has no neumf, so its first model replaces it. Width and step size are the defaults.
    assert default == {
        "model.name": "inner_product",
        "model.embedding_dim": 16,
        "training.learning_rate": 1e-3,
    }
    assert warm == SPACE["warm_start"][0]  # type: ignore[index]


def test_a_condition_holds(tuned: Tuned) -> None:
    for trial in tuned.answer["trials"]:
        assert ("model.n_layers" in trial["params"]) == (trial["params"]["model.name"] == "mlp")


def test_the_table_of_trials(tuned: Tuned) -> None:
    table = pd.read_parquet(tuned.study_folder / "trials.parquet")
    for row, trial in zip(table.to_dict("records"), tuned.answer["trials"], strict=True):
        assert (row["trial"], row["state"], row["epochs"], row["value"]) == (
            trial["id"], trial["state"], trial["epochs"], trial["value"],
        )  # fmt: skip
        assert {name: row[name] for name in trial["params"]} == trial["params"]
        assert row["val_ndcg_at_10"] == row["value"]


def test_the_study_in_optuna(tuned: Tuned) -> None:
    study = open_optuna(tuned.study_folder)
    assert study.direction.name == "MAXIMIZE"
    for found, trial in zip(study.trials, tuned.answer["trials"], strict=True):
        assert (
            found.state
            == {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED}[trial["state"]]
        )
        assert found.params == trial["params"]
        assert list(found.intermediate_values) == list(range(1, trial["epochs"] + 1))
        assert max(found.intermediate_values.values()) == trial["value"]
        # Optuna sets the value of a pruned trial to that of its last step.
        last = found.intermediate_values[trial["epochs"]]
        assert found.value == (trial["value"] if trial["state"] == "complete" else last)


def test_one_parent_run(tuned: Tuned, ratings: Path) -> None:
    client = MlflowClient(tracking_uri=tuned.uri)
    run = client.get_run(tuned.answer["mlflow"]["parent_run_id"])
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "first"
    tags = run.data.tags
    assert "mlflow.parentRunId" not in tags
    assert (tags["state"], tags["study"], tags["kind"]) == ("complete", "first", "study")
    assert (tags["dataset"], tags["best_trial"]) == (str(ratings), tuned.answer["best"]["trial"])
    # 60 users with 14 ratings each; a last and a last but one positive of each are held out.
    counts = {
        "n_users": "60",
        "n_items": "80",
        "n_interactions": "840",
        "n_validation": "60",
        "n_test": "60",
    }
    assert {name: tags[f"data.{name}"] for name in counts} == counts
    assert (
        tags["data.fingerprint"]
        == next((tuned.folder / "processed").glob("*/manifest.json")).parent.name
    )
    assert tags["version.ray"]
    assert len(tags.get("git_commit", "")) == (
        40 if (Path(__file__).parents[2] / ".git").exists() else 0
    )
    assert set(parse_yaml(tags["space"], "")["parameters"]) == set(SPACE["parameters"])
    assert parse_yaml(tags["config"], "")["training"]["max_epochs"] == 4
    assert run.data.metrics["val_ndcg_at_10"] == tuned.answer["best"]["value"]
    assert {file.path for file in client.list_artifacts(run.info.run_id)} == {
        "config.yaml",
        "space.yaml",
        "leaderboard.json",
    }


def test_one_child_a_trial(tuned: Tuned, ratings: Path) -> None:
    runs = logged_trials(tuned.uri, "recsys")
    assert len(runs) == 7
    for run, trial in zip(runs, tuned.answer["trials"], strict=True):
        assert run.info.status == "FINISHED"
        assert run.info.run_name == f"first/{trial['id']}"
        tags = run.data.tags
        assert tags["mlflow.parentRunId"] == tuned.answer["mlflow"]["parent_run_id"]
        assert (tags["state"], tags["model"], tags["dataset"]) == (
            trial["state"],
            trial["params"]["model.name"],
            str(ratings),
        )
        values = {**DEFAULTS, "training.patience": 5, **trial["params"]}
        config = replace_values(Config(), values)
        expected = {
            p: str(get_value(config, p))
            for p in config_paths()
            if p.startswith(("model.", "training."))
        }
        assert run.data.params == {**expected, "seed": str(trial_seed(0, int(trial["id"])))}
        assert (
            open_optuna(tuned.study_folder).user_attrs[f"mlflow_run_id:{trial['id']}"]
            == run.info.run_id
        )


def test_every_epoch_is_logged_once(tuned: Tuned) -> None:
    client = MlflowClient(tracking_uri=tuned.uri)
    study = open_optuna(tuned.study_folder)
    expected = {
        *(
            "val_ndcg_at_10",
            "val_ndcg_at_10_se",
            "val_hit_rate_at_10",
            "val_mrr_at_10",
            "val_recall_at_10",
        ),
        *("train_loss", "train_seconds", "rank_seconds", "samples_per_second"),
    }
    for run, trial in zip(logged_trials(tuned.uri, "recsys"), tuned.answer["trials"], strict=True):
        assert set(run.data.metrics) == expected
        for name in expected:
            assert logged_steps(tuned.uri, run, name) == list(range(1, trial["epochs"] + 1))
        logged = {
            m.step: m.value for m in client.get_metric_history(run.info.run_id, "val_ndcg_at_10")
        }
        assert logged == study.trials[int(trial["id"])].intermediate_values


def test_the_leaderboard(tuned: Tuned) -> None:
    mlflow.set_tracking_uri(tuned.uri)  # load_table ignores the URI of its client
    client = MlflowClient()
    run = client.get_run(tuned.answer["mlflow"]["parent_run_id"])
    table = client.load_table(run.info.experiment_id, "leaderboard.json", run_ids=[run.info.run_id])
    order = sorted(tuned.answer["trials"], key=lambda trial: -trial["value"])
    assert list(table["value"]) == pytest.approx([trial["value"] for trial in order])
    assert list(table["trial"].astype(str)) == [trial["id"] for trial in order]
    assert list(table["model.name"]) == [trial["params"]["model.name"] for trial in order]


def test_the_output_of_the_search(tuned: Tuned) -> None:
    # Each of the 60 users has a positive in validation and one in test.
    n_train = sum(int(line.split(",")[2]) >= 4 for line in ratings_csv().splitlines()[1:]) - 120
    *_, first, then, value, hint = tuned.errors.partition("\ntrial ")[0].splitlines()
    assert first == (
        f"Searching first: 60 users, 80 items, {n_train} positives to train on. It runs 7 trials, "
        f"2 at a time; results in {tuned.study_folder}."
    )
    assert then == (
        "First come 1 warm start and the default config, then configs that the sampler proposes. A "
        "trial reports NDCG@10 (full) after each epoch, of at most 4; of those that reach epoch 1 "
        "or 3, about one in 3 continues."
    )
    assert re.fullmatch(r"On an idle core, .* about \d+\.\d s of training\.", value)
    assert hint.startswith("If the search ends early, resume it with: ")
    lines = [line for line in tuned.errors.splitlines() if line.startswith("trial ")]
    assert len(lines) == 7
    assert " | 7/7 trials, best " in lines[-1]
    best = tuned.answer["best"]
    assert f"best {best['value']:.4f} (trial {best['trial']})" in lines[-1]


def run(capfd: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    code = tune.main(list(argv))
    return code, *capfd.readouterr()


def test_a_dry_run_shows_everything_and_leaves_no_study(
    ray_here: None,
    ratings: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    space, folder = tmp_path / "space.yaml", tmp_path / "out"
    space.write_text(dump_yaml(SPACE))
    paths = ["--space", str(space), "--data", str(ratings), "--dir", str(folder)]
    argv = [*paths, "--dry-run"]
    settings = ["--set", "model.embedding_dim=8", "--cpu", "0.5", "--concurrent", "3"]
    code, out, err = run(capfd, *argv, *settings, "--json")
    assert code == 0
    assert "note: model.embedding_dim is set to 8 and is not searched.\n" in err
    answer: dict[str, Any] = json.loads(out)
    assert list(answer) == [
        *("study", "config", "sample_trials", "resources", "data", "measured", "estimate"),
    ]
    assert answer["data"] == {"users": 60, "items": 80, "interactions": 840}
    assert answer["resources"]["trial"] == {"cpu": 0.5, "gpu": 0.0}
    assert answer["resources"]["concurrency"] == 3
    assert answer["resources"]["cluster"]["CPU"] == os.cpu_count()
    assert answer["config"]["model"]["embedding_dim"] == 8
    assert answer["config"]["training"]["patience"] == 5
    first, second, third = answer["sample_trials"]
    assert first == {"model.name": "inner_product", "training.learning_rate": 0.05}
    assert second == {"model.name": "inner_product", "training.learning_rate": 1e-3}
    assert "model.embedding_dim" not in third
    assert list(answer["measured"]) == ["cheap", "dear"]
    for end in answer["measured"].values():
        assert list(end) == ["params", "train_seconds", "rank_seconds", "memory"]
        assert min(end["train_seconds"], end["rank_seconds"]) > 0
    assert answer["measured"]["dear"]["params"]["model.name"] == "mlp"
    assert answer["measured"]["dear"]["params"]["model.n_layers"] == 2
    estimate = answer["estimate"]
    assert estimate["trials"] == 30
    assert estimate["seconds"] == pytest.approx(30 * estimate["seconds_per_trial"] / 3)
    assert all("time budget" not in warning for warning in estimate["warnings"])
    assert {path.name for path in folder.iterdir()} == {"processed"}
    out = plan_text(answer).plain
    assert "Data: 60 users, 80 items, 840 interactions\n" in out
    assert "Resources: 3 trials at a time, each with 0.5 CPU and 0 GPU, of " in out
    assert re.search(r"\n  dear: .* s to train, .* s to rank, .* of memory \(name=mlp ", out)
    assert re.search(r"\nTime: 30 trials of .* s on average and 20 epochs at most ", out)
    assert out.endswith("\nDry run: no study was created.")


def test_the_output_at_the_end(
    ray_here: None,
    tuned: Tuned,
    ratings: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tuned.uri)
    argv = [
        "--space",
        str(tuned.folder / "space.yaml"),
        "--data",
        str(ratings),
        "--dir",
        "my dir",
        "--name",
        "s",
    ]
    code, out, _ = run(
        capfd, *argv, "--trials", "2", "--max-epochs", "1", "--set", "tracking.experiment=printed"
    )
    assert code == 0
    lines = out.splitlines()
    assert lines[0].split() == ["trial", "state", "epochs", "NDCG@10", "(full)", "parameters"]
    assert lines[3:] == [
        "2 complete",
        "Best config:    my dir/studies/s/best.yaml",
        "Final training: python -m recsys.train --best-of s --dir 'my dir'",
        f"Compare trials: mlflow ui --backend-store-uri {tuned.uri}",
    ]
    # The store of the flag is the only one.
    assert not Path("my dir/mlflow.db").exists()
    assert MlflowClient(tracking_uri=tuned.uri).get_experiment_by_name("printed") is not None


@pytest.mark.usefixtures("ray_here")
def test_a_password_is_stored_nowhere(
    tuned: Tuned, ratings: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    uri = "http://bob:it's-M4RKED@127.0.0.1:9"
    argv = [
        "--space",
        str(tuned.folder / "space.yaml"),
        "--data",
        str(ratings),
        "--dir",
        str(tmp_path),
        "--name",
        "s",
    ]
    away = ["--set", f"tracking.uri={uri}", "--set", "tracking.required=false"]
    searched = in_process.run(tune.main, *argv, *away, "--trials", "2", "--max-epochs", "1")
    trained = in_process.run(train.main, "--best-of", "s", "--dir", tmp_path, *away)
    assert (searched.code, trained.code) == (0, 0)
    assert "MLflow at http://127.0.0.1:9 cannot be reached (" in caplog.text
    outputs = [searched.out, searched.err, trained.out, trained.err, caplog.text]
    files = {
        str(path.relative_to(tmp_path)): path.read_bytes()
        for path in tmp_path.rglob("*")
        if path.is_file()
    }
    written = {
        "studies/s/config.yaml",
        "studies/s/best.yaml",
        "studies/s/mlflow-outbox.jsonl",
        "models/s/model.safetensors",
    }
    assert written < files.keys()
    assert b"uri: http://127.0.0.1:9\n" in files["studies/s/config.yaml"]
    assert [name for name, content in files.items() if b"M4RKED" in content] == []
    assert [text for text in outputs if "M4RKED" in text] == []


def test_a_search_without_a_value_is_a_failure(
    ray_here: None,
    tuned: Tuned,
    ratings: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "space.yaml").write_text(
        "parameters: {training.learning_rate: {choices: [1e30, 1e31]}}"
    )
    argv = [
        "--space",
        str(tmp_path / "space.yaml"),
        "--data",
        str(ratings),
        "--dir",
        str(tmp_path),
        "--name",
        "s",
        "--json",
    ]
    store = ["--set", f"tracking.uri={tuned.uri}", "--set", "tracking.experiment=nothing"]
    code, out, err = run(capfd, *argv, *store, "--trials", "2", "--set", "model.name=inner_product")
    assert code == 1
    answer = json.loads(out)
    assert answer["counts"] == {
        "complete": 0,
        "pruned": 0,
        "failed": 0,
        "diverged": 2,
        "unfinished": 0,
    }
    assert answer["best"] is None
    assert "No trial of s has a value." in err
    assert not (tmp_path / "studies" / "s" / "best.yaml").exists()
    runs = logged_trials(tuned.uri, "nothing")
    assert [(r.info.status, r.data.tags["state"], r.data.metrics) for r in runs] == [
        ("FAILED", "diverged", {})
    ] * 2


# A million epochs would take days.
ENDLESS = [
    "--max-epochs",
    "1000000",
    "--set",
    "study.grace_period=100000",
    "--set",
    "training.patience=null",
    "--set",
    "training.batch_size=128",
]


def parent_of(tuned: Tuned, answer: dict[str, Any]) -> tuple[str, str]:
    """Return the status and the state tag of the study's run."""
    run = MlflowClient(tracking_uri=tuned.uri).get_run(answer["mlflow"]["parent_run_id"])
    return run.info.status, run.data.tags["state"]


def test_a_time_budget_cuts_trials_off(
    ray_here: None,
    tuned: Tuned,
    ratings: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reported = set[int]()

    class Listening(StudyCallback):
        def log_trial_result(self, iteration: int, trial: Trial, result: dict[str, Any]) -> None:
            super().log_trial_result(iteration, trial, result)
            reported.add(trial.config["number"])

    # Each of the two finishes an epoch, and then an hour has passed.
    monkeypatch.setattr(session, "StudyCallback", Listening)
    monkeypatch.setattr(
        "recsys.search.tuning.run.time",
        SimpleNamespace(monotonic=lambda: 3600.0 * (len(reported) == 2)),
    )
    store = ["--set", f"tracking.uri={tuned.uri}", "--set", "tracking.experiment=budget"]
    argv = new_study(tuned, ratings, tmp_path)
    code, out, _ = run(capfd, *argv, *store, *ENDLESS, "--time-budget", "1h", "--concurrent", "2")
    answer = json.loads(out)
    assert code == 0
    # Without --trials, as many as fit: two, both unfinished. Their values count.
    assert answer["counts"] == {
        "complete": 0,
        "pruned": 0,
        "failed": 0,
        "diverged": 0,
        "unfinished": 2,
    }
    assert answer["best"]["value"] == max(trial["value"] for trial in answer["trials"])
    assert [trial.state.name for trial in open_optuna(tmp_path / "studies" / "s").trials[:2]] == [
        "RUNNING",
        "RUNNING",
    ]
    runs = logged_trials(tuned.uri, "budget")
    assert [(r.info.status, r.data.tags["state"]) for r in runs] == [("KILLED", "unfinished")] * 2
    assert parent_of(tuned, answer) == ("FINISHED", "complete")


class Interrupting(StudyCallback):
    """Handler that presses Ctrl-C once the first epoch is logged."""

    def log_trial_result(self, iteration: int, trial: Trial, result: dict[str, Any]) -> None:
        super().log_trial_result(iteration, trial, result)
        os.kill(os.getpid(), signal.SIGINT)


def test_an_interrupt_ends_the_search_in_order(
    ray_here: None,
    tuned: Tuned,
    ratings: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(session, "StudyCallback", Interrupting)
    before = signal.getsignal(signal.SIGINT)
    store = ["--set", f"tracking.uri={tuned.uri}", "--set", "tracking.experiment=interrupt"]
    argv = new_study(tuned, ratings, tmp_path)
    code, out, err = run(capfd, *argv, *store, *ENDLESS, "--concurrent", "1")
    answer = json.loads(out)
    assert code == 130
    assert "Traceback" not in err
    assert answer["counts"]["unfinished"] == len(answer["trials"]) == 1
    # The reports are stored, and the trials can be chosen.
    assert answer["best"]["trial"] == "0"
    assert (tmp_path / "studies" / "s" / "best.yaml").exists()
    (trial,) = logged_trials(tuned.uri, "interrupt")
    assert (trial.info.status, trial.data.tags["state"]) == ("KILLED", "unfinished")
    assert parent_of(tuned, answer) == ("KILLED", "interrupted")
    assert signal.getsignal(signal.SIGINT) == before
