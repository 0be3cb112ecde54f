"""The driver is killed between actions that belong together; the same command resumes each time."""

import signal
from pathlib import Path

from mlflow.tracking import MlflowClient

from recsys.config.files import dump_yaml
from tests.faults.search_process import check_complete, read_trials, started
from tests.small_search import SPACE, ratings_csv

N_TRIALS, N_EPOCHS = 8, 3
POINTS = [
    # The folder of the study does not have its name yet.
    "after recsys.search.record.study_folder:create_optuna_study 1",
    # A trial has its number and no config.
    "after recsys.search.record.study_record:StudyRecord.ask 2",
    # A worker has reported an epoch, which is not stored.
    "before recsys.search.record.study_record:StudyRecord.report 2",
    # The last epoch of a trial is stored, its state is not.
    "before recsys.search.record.study_record:StudyRecord.finish 1",
    # The state of a trial is stored, and not in the outbox; its checkpoint still exists.
    "after recsys.search.record.study_record:StudyRecord.finish 1",
    # The state of a trial is in the outbox; its checkpoint still exists.
    "after recsys.tracking.study_runs:StudyRuns.end_trial 1",
    # An operation was sent to MLflow, and the outbox does not note it.
    "after recsys.tracking.sending:RunSender.send 6",
    # All trials have ended.
    "before recsys.search.record.study_folder:StudyFolder.write_results 1",
]


def test_a_driver_killed_at_each_point_loses_and_doubles_nothing(
    cluster: str, tmp_path: Path
) -> None:
    (tmp_path / "ratings.csv").write_text(ratings_csv())
    (tmp_path / "space.yaml").write_text(dump_yaml(SPACE))
    flags = [
        "--space",
        tmp_path / "space.yaml",
        "--data",
        tmp_path / "ratings.csv",
        "--trials",
        N_TRIALS,
    ]
    flags += ["--max-epochs", N_EPOCHS, "--resume-auto", "--concurrent", 1]
    for point in POINTS:
        before = read_trials(tmp_path)
        with started(tmp_path, *flags, cluster=cluster, killed_at=point) as search:
            code, _, errors = search.end()
        assert code == -signal.SIGKILL, f"{point}: {errors}"
        after = read_trials(tmp_path)
        for trial in before:
            assert (
                trial.intermediate_values.items() <= after[trial.number].intermediate_values.items()
            ), point
            assert not trial.state.is_finished() or after[trial.number] == trial, point
    with started(tmp_path, *flags, cluster=cluster) as search:
        code, answer, errors = search.end()
    assert code == 0, errors
    assert (
        sum(answer["counts"].values())
        == answer["counts"]["complete"] + answer["counts"]["pruned"]
        == N_TRIALS
    )
    uri = answer["mlflow"]["tracking_uri"]
    check_complete(tmp_path, uri, N_TRIALS)
    experiment = MlflowClient(tracking_uri=uri).get_experiment_by_name("recsys")
    assert experiment is not None
    (parent,) = MlflowClient(tracking_uri=uri).search_runs(
        [experiment.experiment_id], "tags.kind = 'study'"
    )
    assert (parent.info.run_id, parent.info.status) == (
        answer["mlflow"]["parent_run_id"],
        "FINISHED",
    )
    kept = [path for path in (tmp_path / "studies/s/trials").rglob("*") if path.is_file()]
    assert sorted(path.name for path in kept) == ["weights.safetensors"] * 3
