"""The log of trials that ended in an earlier process, which was killed before it logged them."""

from pathlib import Path

import pytest

from recsys.config.schema import Config, replace_values
from recsys.search.record.origin import StudyOrigin
from recsys.search.record.running_trial import trial_seed
from recsys.search.record.study_folder import create_optuna_study
from recsys.search.record.study_record import StudyRecord
from recsys.search.space.space_file import parse_space
from recsys.search.study_log import log_missing
from recsys.tracking.connection import open_tracking
from recsys.tracking.study_runs import StudyRuns, open_study_runs
from tests.small_search import SPACE, Searched, logged_steps, logged_trials, search


def open_runs(searched: Searched, uri: str, folder: Path) -> StudyRuns:
    config = replace_values(searched.config, {"tracking.uri": uri})
    return open_study_runs(
        config, folder, searched.folder, open_tracking(config, folder), searched.record.attach_run
    )


@pytest.mark.usefixtures("ray_here")
def test_each_trial_that_ended_has_its_run(ratings: Path, tmp_path: Path) -> None:
    searched = search(ratings, tmp_path, {"study.n_trials": 4})
    uri, seed = f"sqlite:///{tmp_path / 'mlflow.db'}", searched.config.study.seed
    # Of four trials that ended in the record, MLflow has one as it ended, one as unfinished, one as
    # running, and one not at all.
    runs = open_runs(searched, uri, tmp_path)
    runs.start({}, {})
    for number in (0, 1, 2):
        runs.start_trial(number, searched.record.config_of(number), trial_seed(seed, number))
    for step, value in searched.record.values_of(0).items():
        runs.log_step(0, step, step, True, {"val_ndcg_at_10": value})
    runs.log_step(1, 1, 1, True, {"val_ndcg_at_10": searched.record.values_of(1)[1]})
    for number, state in ((0, searched.record.state_of(0)), (1, "unfinished")):
        runs.end_trial(number, state)
    runs.close()
    runs = open_runs(searched, uri, tmp_path)
    log_missing(runs, searched.config, searched.record)
    runs.close()
    logged = logged_trials(uri, "recsys")
    assert [run.data.tags["trial"] for run in logged] == ["0", "1", "2", "3"]
    assert [run.info.status for run in logged] == ["FINISHED"] * 4
    for number, run in enumerate(logged):
        assert run.data.tags["state"] == searched.record.state_of(number)
        assert run.data.params["seed"] == str(trial_seed(seed, number))
        assert logged_steps(uri, run, "val_ndcg_at_10") == list(searched.record.values_of(number))
    # It is logged only once.
    outbox = searched.folder / "mlflow-outbox.jsonl"
    before = outbox.read_bytes()
    runs = open_runs(searched, uri, tmp_path)
    log_missing(runs, searched.config, searched.record)
    runs.close()
    assert outbox.read_bytes() == before


def test_a_trial_in_s3_that_has_no_parameters_yet_is_not_logged(tmp_path: Path) -> None:
    config = replace_values(Config(), {"tracking.uri": f"sqlite:///{tmp_path / 'mlflow.db'}"})
    space = parse_space(SPACE, "")
    study = create_optuna_study(tmp_path, config, StudyOrigin())
    record = StudyRecord(study, config, space)
    first, _ = record.ask()
    record.report(first, 1, 0.5, {})
    study.ask()  # and the process is killed
    tracking = open_tracking(config, tmp_path)
    runs = open_study_runs(config, tmp_path, tmp_path, tracking, record.attach_run)
    runs.start({}, {})
    log_missing(runs, config, record, in_s3=True)
    runs.close()
    (logged,) = logged_trials(config.tracking.uri or "", "recsys")
    assert logged.data.tags["trial"] == str(first)
    assert logged.data.params["model.name"] == record.config_of(first).model.name
