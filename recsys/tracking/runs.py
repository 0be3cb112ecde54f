"""Runs in MLflow: one parent a study, one nested child a trial, one a final training or evaluation.

Stands beside the record of the study, which stays the truth; whatever is logged here can be read off there. A search comes here
through its outbox, final trainings and evaluations directly. Every epoch is one batch request.
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
from alembic.util.exc import CommandError
from mlflow.entities import Metric, Param, RunTag, ViewType
from mlflow.exceptions import MlflowException
from mlflow.store.tracking import SEARCH_MAX_RESULTS_THRESHOLD
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_LOGGED_ARTIFACTS, MLFLOW_PARENT_RUN_ID
from mlflow.utils.validation import MAX_TAG_VAL_LENGTH
from sqlalchemy.exc import DatabaseError

from recsys.config.environment import mlflow_uri
from recsys.config.schema import Config, config_paths, get_value
from recsys.errors import InputError
from recsys.serving import saved_model
from recsys.serving.recommend import recommend
from recsys.storage.credentials import with_password, without_passwords
from recsys.storage.files import file_lock, write_atomically
from recsys.storage.path_errors import disk_full_reason
from recsys.tracking.places import (
    artifact_location,
    log_in,
    require_answer,
    require_place,
    tracking_uri,
)
from recsys.tracking.served_code import copied_code, requirements

_log = logging.getLogger(__name__)


def open_tracking(config: Config, folder: Path) -> "Tracking | None":
    """Connect to the tracking store as `connect` does, or go on without where `tracking.required` is false.

    Returns:
        None where the store cannot be reached and need not be; that is logged as a warning.

    Raises:
        InputError: if there is no place for it, and `tracking.required` is true; if the store cannot be reached or is damaged,
            and `tracking.required` is true.
    """
    require_place(config, folder)
    uri = tracking_uri(config, folder) or "no given place"
    try:
        return connect(config, folder)
    except (MlflowException, OSError) as error:
        full = disk_full_reason(error)
        reason = full or without_passwords(" ".join(str(error).split()))
        if config.tracking.required:
            raise InputError(
                "tracking.uri",
                "must be a reachable MLflow store",
                f"{uri} ({reason})",
                (
                    f"{('Free some room on its disk' if full else 'Start its server')}, or go on without it: --set "
                    "tracking.required=false."
                ),
            ) from error
    _log.warning(
        "MLflow at %s cannot be reached (%s): the command goes on without it.", uri, reason
    )
    return None


def connect(config: Config, folder: Path) -> "Tracking":
    """Connect to the tracking store, making the folder's database and the experiment where they do not exist.

    Raises:
        OSError: if the store does not answer.
        MlflowException: if it is no store, or answers that it cannot work.
    """
    uri = tracking_uri(config, folder)
    if uri is None:
        raise ConnectionError(
            "there is no place for it: tracking.uri is not set, and --dir takes no database"
        )
    uri = log_in(with_password(uri))
    require_answer(uri)
    folder.mkdir(parents=True, exist_ok=True)
    if uri.startswith("sqlite:///"):
        _make_database(Path(uri.removeprefix("sqlite:///")))
    try:
        return Tracking(uri, config.tracking.experiment, artifact_location(uri, folder))
    except CommandError as error:
        raise ConnectionError(
            f"it has the tables of another version or of another program, {error}"
        ) from error
    except DatabaseError as error:
        raise ConnectionError(f"it is damaged, or cannot be used: {error.orig}") from error


def _make_database(path: Path) -> None:
    """Set a database up where there is none: whole, as MLflow opens none that is half set up, and one process alone."""
    with file_lock(path):
        if not path.exists():
            with write_atomically(path) as partial:
                MlflowClient(tracking_uri=f"sqlite:///{partial}").search_experiments(max_results=1)


class Tracking:
    """A connection to one experiment of an MLflow tracking store."""

    def __init__(self, uri: str, experiment: str, location: str | None) -> None:
        """Open the store at `uri` and its `experiment`, made with its files at `location` or restored where it does not exist."""
        self.uri = uri
        self.experiment = experiment
        self._client = MlflowClient(tracking_uri=uri)
        self.experiment_id = self._find_experiment() or self._make_experiment(location)
        self.restore_experiment()

    def _find_experiment(self) -> str | None:
        found = self._client.get_experiment_by_name(self.experiment)
        return found.experiment_id if found else None

    def _make_experiment(self, location: str | None) -> str:
        try:
            return str(self._client.create_experiment(self.experiment, location))
        except MlflowException:
            # Another process may have made it since it was looked for.
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
        """Begin a run with its parameters, nested under `parent` if given, and return its id."""
        run_id = self.create_run(name, tags, parent)
        self.log_params(run_id, params)
        return run_id

    def create_run(
        self, name: str, tags: Mapping[str, object], parent: str | None, began: int | None = None
    ) -> str:
        """Begin a run at `began` (Unix milliseconds; now where absent), nested under `parent` if given, and return its id."""
        nesting = {MLFLOW_PARENT_RUN_ID: parent} if parent else {}
        texts = {key: str(value)[:MAX_TAG_VAL_LENGTH] for key, value in {**tags, **nesting}.items()}
        run_id: str = self._client.create_run(self.experiment_id, began, texts, name).info.run_id
        return run_id

    def log_params(self, run_id: str, params: Mapping[str, object]) -> None:
        """Log parameters in one request."""
        self._client.log_batch(
            run_id, params=[Param(key, str(value)) for key, value in params.items()]
        )

    def log_metrics(
        self, run_id: str, metrics: Mapping[str, float], step: int = 0, now: int | None = None
    ) -> None:
        """Log metrics of one step at `now` (Unix milliseconds; the present where absent) in one request.

        MLflow stores a metric once that has the same step, time and value.
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
        """Store a text as an artifact, in the place of one of this name."""
        self._client.log_text(run_id, text, file)

    def log_table(self, run_id: str, rows: Sequence[Mapping[str, Any]], file: str) -> None:
        """Store rows as a table artifact, which MLflow shows and compares, in the place of one of this name.

        MLflow's own `log_table` would append the rows to those of an earlier time.
        """
        self.log_text(run_id, pd.DataFrame(list(rows)).to_json(orient="split", index=False), file)
        self.set_tags(
            run_id, {MLFLOW_LOGGED_ARTIFACTS: json.dumps([{"path": file, "type": "table"}])}
        )

    def end_run(self, run_id: str, status: str = "FINISHED", now: int | None = None) -> None:
        """End a run at `now` (Unix milliseconds; the present where absent) as FINISHED, FAILED or KILLED."""
        self._client.set_terminated(run_id, status, now)

    def reopen_run(self, run_id: str) -> None:
        """Let an ended run go on."""
        self._client.update_run(run_id, status="RUNNING")

    def delete_run(self, run_id: str) -> None:
        """Delete a run, such as one that was made twice."""
        self._client.delete_run(run_id)

    def restore_experiment(self) -> bool:
        """Restore the experiment with all its runs if it is deleted; return whether it was."""
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
        """Nest the runs below one parent under another."""
        for run_id in self.find_runs({}, parent, ViewType.ACTIVE_ONLY):
            self.set_tags(run_id, {MLFLOW_PARENT_RUN_ID: to})

    def lifecycle(self, run_id: str) -> str | None:
        """Return `active` for a run, `deleted` for one that can be restored, None if the store has no such run."""
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
        """Return the ids of the runs, deleted or not unless `view` says else, with all these tags, below `parent` if given."""
        nesting = {MLFLOW_PARENT_RUN_ID: parent} if parent else {}
        wanted = " and ".join(
            f"tags.`{name}` = '{value}'" for name, value in {**tags, **nesting}.items()
        )
        found = self._client.search_runs(
            [self.experiment_id], wanted, view, SEARCH_MAX_RESULTS_THRESHOLD
        )
        return [run.info.run_id for run in found]

    def log_model(self, run_id: str, model: Path) -> None:
        """Log a saved model as an MLflow model whose `predict` recommends, with the code that it runs; nothing is pickled."""
        saved = saved_model.load(model)
        asked = pd.DataFrame({"user_id": saved.user_ids.slice(0, 1).to_pandas()})
        answered = recommend(saved, asked["user_id"].tolist(), 1).to_pandas()
        with (
            copied_code() as code,
            _store_of_process(self.uri),
            mlflow.start_run(run_id=run_id),
            warnings.catch_warnings(),
        ):
            # Hints on integer columns and examples, which are as they should be.
            warnings.simplefilter("ignore", UserWarning)
            mlflow.pyfunc.log_model(
                name="model",
                python_model=str(Path(__file__).with_name("served_model.py")),
                artifacts={"model": str(model)},
                signature=mlflow.models.infer_signature(asked, answered, params={"k": 10}),
                code_paths=[str(code)],
                pip_requirements=requirements(),
            )


@contextmanager
def _store_of_process(uri: str) -> Iterator[None]:
    """Let MLflow's calls without a client go to a store, and take it back: MLflow writes it into the environment too."""
    before = mlflow_uri()
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)  # type: ignore[arg-type]  # None unsets it


def trial_params(config: Config) -> dict[str, object]:
    """What sets a trial apart, flat: every value of the model and of its training, by config path."""
    return {
        path: get_value(config, path)
        for path in config_paths()
        if path.startswith(("model.", "training."))
    }
