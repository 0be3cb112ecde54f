"""The MLflow callback of Ray Tune: a child run a trial, logged as the trial goes.

Stands between Tune and `study_runs`. Ray's own callback makes requests in Tune's event loop, one a metric, does not nest runs and
ends every trial FINISHED or FAILED; here nothing waits for MLflow, an epoch is one request, and a run ends as the record of the
study says.
"""

import re
from pathlib import Path
from typing import Any, Protocol

from ray.air.integrations.mlflow import MLflowLoggerCallback
from ray.tune.experiment import Trial

from recsys.config.schema import Config
from recsys.tracking.study_runs import StudyRuns

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
"""What Ray colours its tracebacks with."""


class TrialRecord(Protocol):
    """What the callback needs of the record of the study."""

    def ending(self, number: int) -> str:
        """How a trial ended."""


class StudyCallback(MLflowLoggerCallback):
    """Logs each trial of a study to a run nested under the study's."""

    def __init__(self, runs: StudyRuns, record: TrialRecord) -> None:
        super().__init__()
        self._runs = runs
        self._record = record

    def setup(self, *_args: Any, **_kwargs: Any) -> None:
        """Nothing: the outbox has a connection of its own."""

    def log_trial_start(self, trial: Trial) -> None:
        """Begin the trial's run, once."""
        config = Config.model_validate_json(trial.config["config"])
        self._runs.start_trial(trial.config["number"], config, trial.config["seed"])

    def log_trial_result(self, iteration: int, trial: Trial, result: dict[str, Any]) -> None:
        """Log an epoch or a part of one; what a retried trial repeats is not logged again, and divergence tells no metrics.

        The run of a trial that this result ended is ended here: Tune takes what is raised later for a failure of the trial.
        """
        if "metrics" in result:
            self._runs.log_step(
                trial.config["number"],
                result["step"],
                result["epoch"],
                result["whole"],
                result["metrics"],
            )
        if result.get("done"):
            self.log_trial_end(trial)

    def log_trial_end(self, trial: Trial, failed: bool = False) -> None:
        """End the trial's run as the record says; what made it fail is kept with it."""
        number = trial.config["number"]
        state = self._record.ending(number)
        if failed and state == "unfinished":
            return  # it is tried again
        if failed:
            self.log_trial_start(trial)  # Tune tells of no start where the worker died before it
        self._runs.end_trial(number, state, failure_of(trial) if failed else None)


def failure_of(trial: Trial) -> str | None:
    """The tracebacks of a trial's failures, None if Tune has none."""
    if trial.error_file is None:
        return None
    return _COLOURS.sub("", Path(trial.error_file).read_text(encoding="utf-8", errors="replace"))
