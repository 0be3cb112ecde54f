"""Logs of final training and evaluation: their runs in MLflow, and `test_scores.jsonl`.

`test_scores.jsonl` lists every scoring of test, so that repeated looks at test are visible.
"""

import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path

from recsys.config.schema import Config
from recsys.data.splits import HELD_OUT_SPLITS
from recsys.final.choose import Choice
from recsys.final.seeds import Trainings
from recsys.serving.saved_model import SavedModel
from recsys.storage.s3 import fetch, upload, url_of
from recsys.tracking.runs import Tracking, trial_params
from recsys.tracking.versions import version_tags

_log = logging.getLogger(__name__)
ENSEMBLE = "ensemble"
"""Tag `model` of an ensemble's runs."""


def append_test_scores(
    folder: Path, command: str, model: Path, scores: Mapping[str, float]
) -> None:
    """Append a line to `test_scores.jsonl` in `folder`: time, command, model and its scores.

    `model`: a saved model's folder, or STUDY/TRIAL for a trial whose model is not saved.
    """
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
    config, first = choice.config, trainings.first
    params = {**trial_params(config), "seeds": trainings.seeds}
    run_id = _start_training(tracking, choice, config.model.name, params)
    _log_metrics(tracking, run_id, trainings.split, trainings.mean, step=first.n_epochs)
    _end_training(tracking, run_id, model)
    return run_id


def log_ensemble(tracking: Tracking, choice: Choice, saved: SavedModel, model: Path) -> str:
    """Log an ensemble as `log_training` does, with the steps of its selection as a table.

    `choice`: the best trial of its study, under the name of the ensemble.
    """
    run_id = _start_training(tracking, choice, ENSEMBLE, _members_params(saved))
    for split in HELD_OUT_SPLITS:
        if split in saved.metrics:
            _log_metrics(tracking, run_id, split, saved.metrics[split])
    tracking.log_table(run_id, saved.metrics["selection"], "selection.json")
    _end_training(tracking, run_id, model)
    return run_id


def log_evaluation(
    tracking: Tracking, saved: SavedModel, model: Path, scores: Mapping[str, float]
) -> None:
    """Log the test scores of a saved model as a run of its own."""
    config, name, params = saved.config, ENSEMBLE, _members_params(saved)
    if not saved.members:
        name, params = config.model.name, trial_params(config)
    tags = _tags("evaluation", config, name)
    run_id = tracking.start_run(f"{model.name} evaluation", tags, params)
    _log_metrics(tracking, run_id, "test", scores)
    tracking.end_run(run_id)


def _start_training(
    tracking: Tracking, choice: Choice, model: str, params: Mapping[str, object]
) -> str:
    study = {"study": choice.study} if choice.study else {}
    tags = {**_tags("training", choice.config, model), **study}
    return tracking.start_run(choice.name, tags, params, _find_parent(tracking, choice))


def _log_metrics(
    tracking: Tracking, run_id: str, split: str, metrics: Mapping[str, float], step: int = 0
) -> None:
    named = {f"{split}_{name}": value for name, value in metrics.items()}
    tracking.log_metrics(run_id, named, step=step)


def _end_training(tracking: Tracking, run_id: str, model: Path) -> None:
    tracking.log_text(run_id, (model / "config.yaml").read_text(encoding="utf-8"), "config.yaml")
    tracking.log_model(run_id, model)
    tracking.end_run(run_id)


def _members_params(saved: SavedModel) -> dict[str, object]:
    """Return the variants of an ensemble's members; all parameters are in its `config.yaml`."""
    variants = [f"{member.model.name} {member.training.loss}" for member in saved.members]
    return {"members": ", ".join(variants)}


def _tags(kind: str, config: Config, model: str) -> dict[str, str]:
    return {
        "kind": kind,
        "model": model,
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
