"""What a finished search recorded, read from its study and from MLflow."""

import sqlite3
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from optuna.trial import TrialState

from benchmarks.search_quality.outcome import Record, Report
from recsys.config.schema import Config, replace_values
from recsys.search.record.running_trial import trial_seed
from recsys.search.record.study_folder import StudyFolder


def read_study(folder: Path, name: str, began: float, answer: Mapping[str, Any]) -> Record:
    """Return what a search recorded.

    Args:
        folder: the command's `--dir`.
        name: the study's name.
        began: Unix time of the start of the command.
        answer: the command's JSON.
    """
    study = StudyFolder.find(folder, name)
    stored, config = study.read()
    summaries = {summary.number: summary for summary in stored.summaries() if summary.choosable}
    database = folder / "mlflow.db"
    reports = _reports(database, config.metric_name, began)
    on_all_users = [
        report._replace(epoch=found.epoch)
        for report in _reports(database, f"{config.metric_name}_all_users", began)
        if report.trial in summaries and (found := summaries[report.trial].on_all_users)
    ]
    trials = study.optuna_study().get_trials(deepcopy=False)
    complete = [
        trial.datetime_complete.timestamp() - began
        for trial in trials
        if trial.state == TrialState.COMPLETE and trial.datetime_complete is not None
    ]
    record = Record(
        ranks_all=config.evaluation.max_users is None,
        reports=[report for report in reports if report.trial in summaries],
        on_all_users=on_all_users,
        starts=[trial.number for trial in trials if stored.is_first_point(trial.number)],
        first_complete=min(complete, default=None),
        best=answer["best"] and (int(answer["best"]["trial"]), answer["best"]["epoch"]),
        n_trials=len(answer["trials"]),
        trials={},
    )
    configs = {
        number: (
            trial_seed(config.study.seed, number),
            _without_folder(stored.config_of(number)).model_dump_json(),
        )
        for number in sorted({trial for trial, _ in record.to_score()})
    }
    return replace(record, trials=configs)


def _without_folder(config: Config) -> Config:
    """Return a config that names its data by the file alone: results are read on other machines."""
    return replace_values(config, {"data.source": Path(config.data.source).name})


def _reports(database: Path, metric: str, began: float) -> list[Report]:
    """Return the values of whole epochs, which MLflow has with their times."""
    query = """
        SELECT metrics.timestamp, tags.value, metrics.step, metrics.value
        FROM metrics JOIN tags ON tags.run_uuid = metrics.run_uuid AND tags.key = 'trial'
        WHERE metrics.key = ? ORDER BY metrics.timestamp
    """
    with sqlite3.connect(database) as connection:
        rows = connection.execute(query, (metric,)).fetchall()
    return [
        Report(time / 1000 - began, int(trial), step, value) for time, trial, step, value in rows
    ]
