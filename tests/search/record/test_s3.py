"""A search, its resumption on another machine and final training, which share S3 alone."""

from pathlib import Path

import pytest

from recsys import evaluate, tune
from recsys.config.files import dump_yaml
from recsys.storage.s3 import list_folder, open_folder
from tests.commands import in_process
from tests.s3_server import BUCKET
from tests.search.on_s3 import started, stored_trials
from tests.small_search import SPACE, logged_steps, logged_trials

PLACE = f"s3://{BUCKET}/team/ncf"
N_TRIALS, N_EPOCHS = 4, 6


def test_a_study_is_resumed_on_another_head(
    s3_environment: dict[str, str], ratings: Path, tmp_path: Path
) -> None:
    (tmp_path / "space.yaml").write_text(dump_yaml(SPACE))
    tracking = f"sqlite:///{tmp_path / 'runs.db'}"  # one for both heads, as a server would be
    flags = ["--dir", PLACE, "--name", "s"]
    search = [
        *flags,
        "--space",
        tmp_path / "space.yaml",
        "--data",
        ratings,
        "--trials",
        N_TRIALS,
        "--max-epochs",
        N_EPOCHS,
    ]
    search += [
        "--set",
        "training.batch_size=4",
        "--set",
        "study.grace_period=6",
        "--set",
        f"tracking.uri={tracking}",
    ]
    with started("tune", tmp_path / "first", s3_environment, *search) as head:
        head.wait_until(
            lambda: sum(len(trial.intermediate_values) for trial in stored_trials(PLACE, "s")) >= 4
        )
        head.process.kill()
        head.process.wait()
    before = stored_trials(PLACE, "s")

    with started("tune", tmp_path / "second", s3_environment, *flags, "--resume") as head:
        code, found, errors = head.end()
    assert code == 0, errors
    after = stored_trials(PLACE, "s")
    assert [trial.number for trial in after] == list(range(N_TRIALS))
    assert {trial.state.name for trial in after} <= {"COMPLETE", "PRUNED"}
    for trial in before:
        assert trial.intermediate_values.items() <= after[trial.number].intermediate_values.items()
        assert trial.params.items() <= after[trial.number].params.items()
    runs = logged_trials(tracking, "recsys")
    assert [int(run.data.tags["trial"]) for run in runs] == list(range(N_TRIALS))
    for trial, run in zip(after, runs, strict=True):
        assert sorted(trial.intermediate_values) == list(
            range(1, max(trial.intermediate_values) + 1)
        )
        assert logged_steps(tracking, run, "val_ndcg_at_10") == sorted(trial.intermediate_values)
        assert {name: run.data.params[name] for name in trial.params if "@" not in name} == {
            name: str(value) for name, value in trial.params.items() if "@" not in name
        }
    study = open_folder(PLACE) / "studies" / "s"
    assert set(list_folder(study)) == {
        "config.yaml", "space.yaml", "optuna.jsonl", "mlflow-outbox.jsonl", "best.yaml",
        "trials.parquet", "trials",
    }  # fmt: skip
    kept = {
        name
        for name in list_folder(study / "trials")
        if list_folder(study / "trials" / name) == ["weights.safetensors"]
    }
    ranked = sorted(found["trials"], key=lambda trial: -trial["value"])
    assert kept == {trial["id"] for trial in ranked[:3]}
    assert found["best"]["config"] == f"{PLACE}/studies/s/best.yaml"

    with started(
        "train", tmp_path / "third", s3_environment, "--dir", PLACE, "--best-of", "s"
    ) as head:
        code, trained, errors = head.end()
    assert code == 0, errors
    assert trained["model"] == f"{PLACE}/models/s"
    evaluated = in_process.answer(evaluate.main, "--dir", PLACE, "--model", trained["model"])
    assert evaluated["test"] == pytest.approx(trained["test"])
    scores = open_folder(PLACE) / "test_scores.jsonl"
    assert "test_scores.jsonl" in list_folder(scores.parent)
    # The first command was killed; the others left no local copy.
    left = [
        path.name for head in ("second", "third") for path in (tmp_path / head).glob("recsys-*")
    ]
    assert left == []


def test_a_folder_in_s3_takes_no_sqlite_of_mlflows(
    s3_environment: dict[str, str], ratings: Path, tmp_path: Path
) -> None:
    (tmp_path / "space.yaml").write_text(dump_yaml(SPACE))
    flags = ["--dir", PLACE, "--space", tmp_path / "space.yaml", "--data", ratings]
    code, _, errors = in_process.run(tune.main, *flags)
    assert code == 2
    assert errors == (
        f"error: tracking.uri: must be a server or a database where {PLACE} is in S3, since SQLite "
        "cannot be used there, but got nothing. Give http://HOST:PORT or "
        "postgresql://USER@HOST/NAME, or set tracking.required=false.\n"
    )
