"""Logs of final training and evaluation: their runs in MLflow, and `test_scores.jsonl`.

`test_scores.jsonl` lists every scoring of test, so that repeated looks at test are visible.
"""

import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path

from recsys.config.files import config_yaml
from recsys.config.schema import Config
from recsys.final.choose import Choice
from recsys.final.seeds import Trainings
from recsys.storage.s3 import fetch, upload, url_of
from recsys.tracking.runs import Tracking, trial_params
from recsys.tracking.versions import version_tags

_log = logging.getLogger(__name__)


def append_test_scores(
    folder: Path, command: str, model: Path, scores: Mapping[str, float]
) -> None:
    """Append a line to `test_scores.jsonl` in `folder`: time, command, model and its scores."""
    entry = {
        "time": int(time.time()),
        "command": command,
        "model": url_of(model) or str(model),
        "test": dict(scores),
    }
    path = folder / "test_scores.jsonl"
    fetch(path)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")
    upload(path)


def log_training(tracking: Tracking, choice: Choice, trainings: Trainings, model: Path) -> str:
    """Log a final training with its saved model as a run of its own, and return the run's id.

    The run is nested under the run of the study, if there is one.
    """
    config = choice.config
    study = {"study": choice.study} if choice.study else {}
    run_id = tracking.start_run(
        choice.name,
        {**_tags("training", config), **study},
        {**trial_params(config), "seeds": trainings.seeds},
        _find_parent(tracking, choice),
    )
    metrics = {f"{trainings.split}_{name}": value for name, value in trainings.mean.items()}
    tracking.log_metrics(run_id, metrics, step=trainings.first.n_epochs)
    tracking.log_text(run_id, config_yaml(config), "config.yaml")
    tracking.log_model(run_id, model)
    tracking.end_run(run_id)
    return run_id


def log_evaluation(
    tracking: Tracking, config: Config, model: Path, scores: Mapping[str, float]
) -> None:
    """Log the test scores of a saved model as a run of its own."""
    tags, params = _tags("evaluation", config), trial_params(config)
    run_id = tracking.start_run(f"{model.name} evaluation", tags, params)
    tracking.log_metrics(run_id, {f"test_{name}": value for name, value in scores.items()})
    tracking.end_run(run_id)


def _tags(kind: str, config: Config) -> dict[str, str]:
    return {
        "kind": kind,
        "model": config.model.name,
        "dataset": config.data.source,
        "state": "complete",
        **version_tags(),
    }


def _find_parent(tracking: Tracking, choice: Choice) -> str | None:
    """Return the run of the study if runs can be nested under it, None otherwise."""
    if choice.study_run_id is None or tracking.lifecycle(choice.study_run_id) == "active":
        return choice.study_run_id
    _log.warning(
        "MLflow has no run %s of study %s: the training's run has no parent.",
        choice.study_run_id,
        choice.study,
    )
    return None
