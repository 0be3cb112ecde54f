"""The evaluate command's work: score a saved model on test again, and log the scores."""

from pathlib import Path
from typing import Any

import torch

from recsys.config.files import load_config
from recsys.console.verbosity import progress
from recsys.data.preprocessing import pipeline
from recsys.data.processed import load
from recsys.errors import InputError
from recsys.evaluation.evaluate import evaluate, protocol_name
from recsys.evaluation.scorers import scorer_of
from recsys.final.log import append_test_scores, log_evaluation
from recsys.serving import model_folder, saved_model
from recsys.tracking.connection import open_tracking


def evaluate_model(model: Path, folder: Path) -> dict[str, Any]:
    """Score a saved model on test, log the scores, and return the command's answer.

    `model` is a path, or a name in `folder`/models.

    Raises:
        InputError: if the model or one of its files is missing or damaged; if the data differ from
            those that the model was trained on; if MLflow is required and cannot be reached.
    """
    path = model_folder.find_model(model, folder)
    saved = saved_model.load(path)
    processed = pipeline.prepare(saved.config, folder)
    if processed.fingerprint != saved.metrics.get("fingerprint"):
        raise InputError(
            path,
            "must be evaluated on the data it was trained on",
            f"other data at {saved.config.data.source}",
            "Restore the data, or train the model again.",
        )
    # The environment's tracking URI takes precedence over the model's.
    tracking = open_tracking(load_config(saved.config), folder)
    torch.set_num_threads(max(1, int(saved.config.resources.cpu)))
    with progress("Scoring test"):
        data = load(processed, "test", False)
        scores = evaluate(scorer_of(saved.model, data), data, saved.config)
    append_test_scores(folder, "evaluate", path, scores)
    if tracking:
        log_evaluation(tracking, saved, path, scores)
    return {"protocol": protocol_name(saved.config), "test": scores}
