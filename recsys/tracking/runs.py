"""Runs in MLflow: one parent a study, one nested child a trial, one a final training or evaluation.

Stands beside the record of the study, which stays the truth; whatever is logged here can be read off there. Every epoch is one
batch request.
"""

import logging
import os
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
import warnings
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

import mlflow
import pandas as pd
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.utils.validation import MAX_TAG_VAL_LENGTH

from recsys.config import Config, config_paths, get_value
from recsys.training import saved_model
from recsys.training.recommending import recommend

STATUSES = {"complete": "FINISHED", "pruned": "FINISHED", "failed": "FAILED", "diverged": "FAILED", "unfinished": "KILLED"}
_CHECK_SECONDS = 5.0
_log = logging.getLogger(__name__)
logging.getLogger("mlflow").setLevel(logging.WARNING)
logging.getLogger("alembic").setLevel(logging.WARNING)


def tracking_uri(config: Config, folder: Path) -> str:
    """Where runs are logged: `tracking.uri`, else MLFLOW_TRACKING_URI, else the folder's own database."""
    return config.tracking.uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder / 'mlflow.db'}"


def open_tracking(config: Config, folder: Path) -> "Tracking | None":
    """Connect to the tracking store, making the folder's database and the experiment where they do not exist.

    Returns:
        None where the store cannot be reached and `tracking.required` is false; that is logged as a warning.

    Raises:
        ConnectionError: if the store cannot be reached and `tracking.required` is true.
    """
    uri = tracking_uri(config, folder)
    try:
        _check_reachable(uri)
        folder.mkdir(parents=True, exist_ok=True)
        return Tracking(uri, config.tracking.experiment, folder)
    except (MlflowException, OSError) as error:
        reason = " ".join(str(error).split())
    if config.tracking.required:
        raise ConnectionError(
            f"tracking.uri: must be a reachable MLflow store, but got {uri} ({reason}). "
            "Start its server, or go on without it: --set tracking.required=false."
        )
    _log.warning("MLflow at %s cannot be reached (%s): nothing is logged to it.", uri, reason)
    return None


class Tracking:
    """A connection to one experiment of an MLflow tracking store."""

    def __init__(self, uri: str, experiment: str, folder: Path) -> None:
        self.uri = uri
        self.experiment = experiment
        self._client = MlflowClient(tracking_uri=uri)
        found = self._client.get_experiment_by_name(experiment)
        # A server keeps artifacts where it was told to; the folder's own database keeps them beside it.
        location = (folder / "artifacts").resolve().as_uri() if uri.startswith("sqlite:") else None
        self.experiment_id = found.experiment_id if found else self._client.create_experiment(experiment, location)

    def start_run(self, name: str, tags: Mapping[str, object], params: Mapping[str, object], parent: str | None = None) -> str:
        """Begin a run, nested under `parent` if given, and return its id."""
        nesting = {"mlflow.parentRunId": parent} if parent else {}
        texts = {key: str(value)[:MAX_TAG_VAL_LENGTH] for key, value in {**tags, **nesting}.items()}
        run = self._client.create_run(self.experiment_id, run_name=name, tags=texts)
        run_id: str = run.info.run_id
        self._client.log_batch(run_id, params=[Param(key, str(value)) for key, value in params.items()])
        return run_id

    def log_metrics(self, run_id: str, metrics: Mapping[str, float], step: int = 0) -> None:
        """Log metrics of one step in one request."""
        now = int(time.time() * 1000)
        self._client.log_batch(run_id, metrics=[Metric(key, float(value), now, step) for key, value in metrics.items()])

    def set_tags(self, run_id: str, tags: Mapping[str, object]) -> None:
        """Set tags in one request."""
        self._client.log_batch(run_id, tags=[RunTag(key, str(value)) for key, value in tags.items()])

    def log_text(self, run_id: str, text: str, file: str) -> None:
        """Store a text as an artifact."""
        self._client.log_text(run_id, text, file)

    def log_table(self, run_id: str, rows: Sequence[Mapping[str, Any]], file: str) -> None:
        """Store rows as a table artifact, which MLflow shows and compares."""
        if rows:
            self._client.log_table(run_id, pd.DataFrame(list(rows)), file)

    def end_trial(self, run_id: str, state: str) -> None:
        """End a trial's run with the status and the tag that its state in the record calls for."""
        self.set_tags(run_id, {"state": state})
        self.end_run(run_id, STATUSES[state])

    def end_run(self, run_id: str, status: str = "FINISHED") -> None:
        """End a run; MLflow's statuses are FINISHED, FAILED and KILLED."""
        self._client.set_terminated(run_id, status)

    def find_study(self, study: str) -> str | None:
        """The id of a study's parent run, the newest of that name."""
        name = study.replace("'", "")
        found = self._client.search_runs([self.experiment_id], f"tags.study = '{name}' and tags.kind = 'study'", max_results=1)
        return found[0].info.run_id if found else None

    def log_model(self, run_id: str, model: Path) -> None:
        """Log a saved model as an MLflow model whose `predict` recommends; it is loaded from code, nothing is pickled."""
        mlflow.set_tracking_uri(self.uri)
        saved = saved_model.load(model)
        asked = pd.DataFrame({"user_id": saved.user_ids.slice(0, 1).to_pandas()})
        answered = recommend(saved, asked["user_id"].tolist(), 1).to_pandas()
        with mlflow.start_run(run_id=run_id), warnings.catch_warnings():
            # Hints on integer columns and examples, which are as they should be.
            warnings.simplefilter("ignore", UserWarning)
            mlflow.pyfunc.log_model(
                name="model",
                python_model=str(Path(__file__).with_name("served_model.py")),
                artifacts={"model": str(model)},
                signature=mlflow.models.infer_signature(asked, answered, params={"k": 10}),
                pip_requirements=[f"recsys=={version('recsys')}"],
            )


def trial_params(config: Config) -> dict[str, object]:
    """What sets a trial apart, flat: every value of the model and of its training, by config path."""
    return {path: get_value(config, path) for path in config_paths() if path.startswith(("model.", "training."))}


def version_tags() -> dict[str, str]:
    """The versions that a result depends on, and the git commit where recsys runs from a checkout."""
    tags = {f"version.{name}": version(name) for name in ("recsys", "ray", "torch", "optuna", "mlflow")}
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        commit = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_CHECK_SECONDS)
    except FileNotFoundError:  # no git on this machine, so no commit to tell
        return tags
    return {**tags, "git_commit": commit.stdout.strip()} if commit.returncode == 0 else tags


def _check_reachable(uri: str) -> None:
    """MLflow itself retries for minutes; ask a server once before anything starts.

    Raises:
        OSError: if it does not answer.
    """
    if urllib.parse.urlsplit(uri).scheme in ("http", "https"):
        with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=_CHECK_SECONDS):
            pass
