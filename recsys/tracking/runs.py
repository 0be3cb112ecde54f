"""Runs in MLflow: of studies, of their trials (nested), of final trainings and of evaluations.

A search logs through its outbox, final trainings and evaluations directly. MLflow has a copy of
what the record of the study holds. An epoch is one batch request.
"""

import json
import logging
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.entities import Metric, Param, RunTag, ViewType
from mlflow.exceptions import MlflowException
from mlflow.store.tracking import SEARCH_MAX_RESULTS_THRESHOLD
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_LOGGED_ARTIFACTS, MLFLOW_PARENT_RUN_ID
from mlflow.utils.validation import MAX_TAG_VAL_LENGTH

from recsys.config.environment import mlflow_uri
from recsys.config.schema import Config, config_paths, get_value
from recsys.serving import saved_model
from recsys.tracking.served_code import copied_code, requirements, signature_of

_log = logging.getLogger(__name__)


class Tracking:
    """Connection to one experiment of an MLflow tracking store."""

    def __init__(self, uri: str, experiment: str, location: str | None) -> None:
        """Open an experiment, and create or restore it if needed.

        Args:
            uri: the tracking URI.
            experiment: the experiment's name.
            location: URI of a new experiment's artifacts; None for the server's default.
        """
        self.uri = uri
        self.experiment = experiment
        self._client = MlflowClient(tracking_uri=uri)
        self.experiment_id = self._find_experiment() or self._create_experiment(location)
        self.restore_experiment()

    def _find_experiment(self) -> str | None:
        found = self._client.get_experiment_by_name(self.experiment)
        return found.experiment_id if found else None

    def _create_experiment(self, location: str | None) -> str:
        try:
            return str(self._client.create_experiment(self.experiment, location))
        except MlflowException:
            # Another process may have created it in the meantime.
            if (found := self._find_experiment()) is None:
                raise
            return found

    def start_run(
        self,
        name: str,
        tags: Mapping[str, object],
        params: Mapping[str, object],
        parent: str | None = None,
    ) -> str:
        """Start a run with its parameters, nested below `parent` if given, and return its id."""
        run_id = self.create_run(name, tags, parent)
        self.log_params(run_id, params)
        return run_id

    def create_run(
        self, name: str, tags: Mapping[str, object], parent: str | None, now: int | None = None
    ) -> str:
        """Start a run, nested below `parent` if given, and return its id.

        Its start is `now` in Unix milliseconds, the present time if None.
        """
        nesting = {MLFLOW_PARENT_RUN_ID: parent} if parent else {}
        texts = {key: str(value)[:MAX_TAG_VAL_LENGTH] for key, value in {**tags, **nesting}.items()}
        run_id: str = self._client.create_run(self.experiment_id, now, texts, name).info.run_id
        return run_id

    def log_params(self, run_id: str, params: Mapping[str, object]) -> None:
        """Log parameters in one request."""
        self._client.log_batch(
            run_id, params=[Param(key, str(value)) for key, value in params.items()]
        )

    def log_metrics(
        self, run_id: str, metrics: Mapping[str, float], step: int = 0, now: int | None = None
    ) -> None:
        """Log metrics of one step in one request.

        Their time is `now` in Unix milliseconds, the present time if None. MLflow stores a metric
        of the same step, time and value once.
        """
        now = int(time.time() * 1000) if now is None else now
        self._client.log_batch(
            run_id, metrics=[Metric(key, float(value), now, step) for key, value in metrics.items()]
        )

    def set_tags(self, run_id: str, tags: Mapping[str, object]) -> None:
        """Set tags in one request."""
        self._client.log_batch(
            run_id, tags=[RunTag(key, str(value)) for key, value in tags.items()]
        )

    def log_text(self, run_id: str, text: str, file: str) -> None:
        """Store a text as an artifact, replacing one of this name."""
        self._client.log_text(run_id, text, file)

    def log_table(self, run_id: str, rows: Sequence[Mapping[str, Any]], file: str) -> None:
        """Store rows as a table artifact, which MLflow's UI shows, replacing one of this name.

        MLflow's own `log_table` would append the rows.
        """
        self.log_text(run_id, pd.DataFrame(list(rows)).to_json(orient="split", index=False), file)
        self.set_tags(
            run_id, {MLFLOW_LOGGED_ARTIFACTS: json.dumps([{"path": file, "type": "table"}])}
        )

    def end_run(self, run_id: str, status: str = "FINISHED", now: int | None = None) -> None:
        """End a run as FINISHED, FAILED or KILLED.

        Its end is `now` in Unix milliseconds, the present time if None.
        """
        self._client.set_terminated(run_id, status, now)

    def reopen_run(self, run_id: str) -> None:
        """Reopen a run that has ended."""
        self._client.update_run(run_id, status="RUNNING")

    def delete_run(self, run_id: str) -> None:
        """Delete a run, such as one that was created twice."""
        self._client.delete_run(run_id)

    def restore_experiment(self) -> bool:
        """Restore the experiment with its runs if it is deleted; return whether it was."""
        if self._client.get_experiment(self.experiment_id).lifecycle_stage == "active":
            return False
        self._client.restore_experiment(self.experiment_id)
        _log.warning(
            "MLflow's experiment %s was deleted: it is restored with its runs.", self.experiment
        )
        return True

    def restore_run(self, run_id: str) -> None:
        """Restore a deleted run and the deleted runs below it."""
        for deleted in (run_id, *self.find_runs({}, run_id, ViewType.DELETED_ONLY)):
            self._client.restore_run(deleted)

    def move_runs(self, parent: str, to: str) -> None:
        """Move the runs below one parent to another."""
        for run_id in self.find_runs({}, parent, ViewType.ACTIVE_ONLY):
            self.set_tags(run_id, {MLFLOW_PARENT_RUN_ID: to})

    def lifecycle(self, run_id: str) -> str | None:
        """Return `active`, `deleted` if the run can be restored, None if there is no such run."""
        try:
            stage: str = self._client.get_run(run_id).info.lifecycle_stage
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
        return stage

    def find_runs(
        self, tags: Mapping[str, object], parent: str | None, view: int = ViewType.ALL
    ) -> list[str]:
        """Return the ids of the runs with all these tags, below `parent` if given.

        `view` chooses active runs, deleted ones or both.
        """
        nesting = {MLFLOW_PARENT_RUN_ID: parent} if parent else {}
        wanted = " and ".join(
            f"tags.`{name}` = '{value}'" for name, value in {**tags, **nesting}.items()
        )
        found = self._client.search_runs(
            [self.experiment_id], wanted, view, SEARCH_MAX_RESULTS_THRESHOLD
        )
        return [run.info.run_id for run in found]

    def log_model(self, run_id: str, model: Path) -> None:
        """Log a saved model as an MLflow model whose `predict` recommends.

        The model includes the code that it runs; nothing is pickled.
        """
        signature = signature_of(saved_model.load(model))
        with (
            copied_code() as code,
            _store_of_process(self.uri),
            mlflow.start_run(run_id=run_id),
            warnings.catch_warnings(),
        ):
            # MLflow warns of integer columns and of a missing example, which are intended.
            warnings.simplefilter("ignore", UserWarning)
            mlflow.pyfunc.log_model(
                name="model",
                python_model=str(Path(__file__).with_name("served_model.py")),
                artifacts={"model": str(model)},
                signature=signature,
                code_paths=[str(code)],
                pip_requirements=requirements(),
            )


@contextmanager
def _store_of_process(uri: str) -> Iterator[None]:
    """Direct MLflow's calls without a client to a store within a block.

    MLflow also sets its environment variable, which is restored.
    """
    before = mlflow_uri()
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)  # type: ignore[arg-type]  # None unsets it


def trial_params(config: Config) -> dict[str, object]:
    """Return the parameters of a trial: all values of its model and training, by config path."""
    return {
        path: get_value(config, path)
        for path in config_paths()
        if path.startswith(("model.", "training."))
    }
