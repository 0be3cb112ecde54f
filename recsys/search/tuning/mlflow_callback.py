"""Tune's callback that logs the trials of a study to MLflow, one run per trial, as they report.

It only puts operations into the outbox (`tracking.study_runs`), so that Tune's event loop never
waits for MLflow. A run ends in the state that the record says.
"""

import re
from pathlib import Path
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.logger import LoggerCallback

from recsys.config.schema import Config
from recsys.search.record.study_record import StudyRecord
from recsys.search.tuning.messages import Report, message_of
from recsys.tracking.study_runs import StudyRuns

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
"""Escape sequences by which Ray colours its tracebacks."""


class StudyCallback(LoggerCallback):
    """Logger of each trial to a run nested under the study's run."""

    def __init__(self, runs: StudyRuns, record: StudyRecord) -> None:
        self._runs = runs
        self._record = record

    def log_trial_start(self, trial: Trial) -> None:
        """Start the trial's run, or reopen it if an earlier process ended it."""
        config = Config.model_validate_json(trial.config["config"])
        self._runs.start_trial(trial.config["number"], config, trial.config["seed"])

    def log_trial_result(self, iteration: int, trial: Trial, result: dict[str, Any]) -> None:
        """Log a step, unless it was logged before; a retried trial reports some steps again.

        A result that ends the trial also ends its run. Tune would take an error that is raised in
        `log_trial_end`, which it calls later, for a failure of the trial.
        """
        message = message_of(result)
        if isinstance(message, Report):
            metrics = dict(message.metrics)
            if message.on_all_users is not None:
                metrics |= message.on_all_users.metrics(self._record.base.metric_name)
            self._runs.log_step(
                trial.config["number"],
                message.step,
                message.epoch,
                message.is_whole_epoch,
                metrics,
            )
        if result.get("done"):
            self.log_trial_end(trial)

    def log_trial_end(self, trial: Trial, failed: bool = False) -> None:
        """End the trial's run in the record's state, with the traceback of a failure."""
        number = trial.config["number"]
        state = self._record.state_of(number)
        if failed and state == "unfinished":
            return  # it will be retried
        if failed:
            self.log_trial_start(trial)  # the worker may have died before Tune reported a start
        self._runs.end_trial(number, state, traceback_of(trial) if failed else None)


def traceback_of(trial: Trial) -> str | None:
    """Return the tracebacks of all failures of a trial, None if Tune has none."""
    if trial.error_file is None:
        return None
    return _COLOURS.sub("", Path(trial.error_file).read_text(encoding="utf-8", errors="replace"))
