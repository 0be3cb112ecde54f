"""The MLflow callback of Ray Tune: a child run a trial, logged as the trial goes.

Stands between Tune and `runs`. Ray's own callback logs each metric by a request of its own, does not nest runs and ends every
trial FINISHED or FAILED; here an epoch is one request, and a run ends as the record of the study says.
"""

from typing import Any, Protocol

from ray.air.integrations.mlflow import MLflowLoggerCallback
from ray.tune.experiment import Trial

from recsys.config import Config
from recsys.tracking.runs import Tracking, trial_params


class TrialRecord(Protocol):
    """What the callback needs of the record of the study."""

    def attach_run(self, number: int, run_id: str) -> None:
        """Write which MLflow run belongs to a trial."""

    def ending(self, number: int) -> str:
        """How a trial ended."""


class StudyCallback(MLflowLoggerCallback):
    """Logs each trial of a study to a run nested under the study's."""

    def __init__(self, tracking: Tracking, record: TrialRecord, study: str, parent: str, dataset: str) -> None:
        super().__init__(tracking_uri=tracking.uri, experiment_name=tracking.experiment)
        self._tracking = tracking
        self._record = record
        self._study = study
        self._parent = parent
        self._dataset = dataset
        self._runs: dict[int, str] = {}
        self._epochs: dict[int, int] = {}

    def setup(self, *_args: Any, **_kwargs: Any) -> None:
        """Nothing: the connection was opened before the search."""

    def log_trial_start(self, trial: Trial) -> None:
        """Begin the trial's run, once."""
        number = trial.config["number"]
        if number in self._runs:
            return
        config = Config.model_validate_json(trial.config["config"])
        tags = {"kind": "trial", "study": self._study, "trial": number, "state": "running"}
        tags |= {"model": config.model.name, "dataset": self._dataset}
        params = {**trial_params(config), "seed": trial.config["seed"]}
        self._runs[number] = self._tracking.start_run(f"{self._study}/{number}", tags, params, self._parent)
        self._record.attach_run(number, self._runs[number])

    def log_trial_result(self, iteration: int, trial: Trial, result: dict[str, Any]) -> None:  # noqa: ARG002 (Tune's signature)
        """Log an epoch; one that a retried trial repeats is not logged again."""
        number, epoch = trial.config["number"], result.get("epoch", 0)
        if epoch > self._epochs.get(number, 0):
            self._epochs[number] = epoch
            self._tracking.log_metrics(self._runs[number], result["metrics"], step=epoch)

    def log_trial_end(self, trial: Trial, failed: bool = False) -> None:  # noqa: ARG002 (the record knows more)
        """End the trial's run as the record says."""
        number = trial.config["number"]
        self._tracking.end_trial(self._runs.pop(number), self._record.ending(number))
