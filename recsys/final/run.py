"""Final training: the chosen config on train and validation, its score on test, its model on disk and in MLflow.

Stands at the end of the flow, behind the search or without one.
"""

import logging
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from recsys.config.files import config_yaml, load_config
from recsys.config.schema import Config
from recsys.console.verbosity import progress
from recsys.data.interactions import Interactions
from recsys.data.negatives import UserItemIndex, index_pairs
from recsys.data.preprocessing import pipeline
from recsys.data.processed import (
    Processed,
    all_pairs,
    item_ids,
    item_titles,
    load,
    resolve,
    user_ids,
)
from recsys.errors import InputError
from recsys.evaluation.baselines import score_baselines
from recsys.evaluation.evaluate import evaluate, protocol_name
from recsys.evaluation.ranking import ModelScorer
from recsys.final import placement
from recsys.final.choose import Choice
from recsys.final.train import (
    Trained,
    append_test_scores,
    find_n_epochs,
    train_for_test,
    train_on_validation,
)
from recsys.serving import saved_model
from recsys.serving.saved_model import SavedModel
from recsys.tracking.runs import Tracking, open_tracking, trial_params
from recsys.tracking.versions import version_tags

_log = logging.getLogger(__name__)


def train(
    choice: Choice, folder: Path, out: Path | None, *, n_seeds: int, validate: bool
) -> dict[str, Any]:
    """Train the choice with `n_seeds` seeds, save the first one's model, log the run, and return the command's answer.

    With `validate` training is on train alone, and test is not read.

    Raises:
        InputError: if the config, the data and the machines do not go together, or the model's folder holds something else; if
            there is no such cluster, or MLflow is required and cannot be reached.
    """
    path = out or folder / "models" / (f"{choice.name}-validate" if validate else choice.name)
    saved_model.require_replaceable(path)
    placement.require_device(choice.config)
    processed = pipeline.prepare(choice.config, folder)
    config = resolve(choice.config, processed.manifest)
    tracking = open_tracking(config, folder)
    seeds = [choice.seed + offset for offset in range(n_seeds)]
    part = "validation" if validate else "test"
    trained, baselines, data = _train_seeds(
        config, processed, choice.n_epochs, seeds, None if validate else (folder, path)
    )
    first, mean = (
        trained[0],
        {
            name: statistics.fmean(one.metrics[name] for one in trained)
            for name in trained[0].metrics
        },
    )
    metrics = {
        "fingerprint": processed.fingerprint,
        "seed": seeds[0],
        "epochs": first.n_epochs,
        part: first.metrics,
    }
    seen = _pairs_of(data) if validate else all_pairs(processed)
    _save(
        path,
        config,
        processed,
        first,
        metrics,
        seen=seen,
        is_trained=np.bincount(data.user, minlength=data.n_users) > 0,
    )
    run_id = None
    if tracking:
        parent = _find_parent(tracking, choice)
        tags = {
            "kind": "training",
            "model": config.model.name,
            "dataset": config.data.source,
            "state": "complete",
        }
        tags |= {"study": choice.study} if choice.study else {}
        run_id = tracking.start_run(
            choice.name,
            {**tags, **version_tags()},
            {**trial_params(config), "seeds": seeds},
            parent,
        )
        tracking.log_metrics(
            run_id, {f"{part}_{name}": value for name, value in mean.items()}, step=first.n_epochs
        )
        tracking.log_text(run_id, config_yaml(config), "config.yaml")
        tracking.log_model(run_id, path)
        tracking.end_run(run_id)
    return {
        "model": str(path),
        "epochs": first.n_epochs,
        "protocol": protocol_name(config),
        part: mean,
        "seeds": [
            {"seed": seed, part: one.metrics} for seed, one in zip(seeds, trained, strict=True)
        ],
        "baselines": baselines,
        "mlflow_run_id": run_id,
    }


def _find_parent(tracking: Tracking, choice: Choice) -> str | None:
    """Return the run of the study that a config was chosen from, None if there is none that can have a run below it."""
    if choice.study_run_id is None or tracking.lifecycle(choice.study_run_id) == "active":
        return choice.study_run_id
    _log.warning(
        "MLflow has no run %s of study %s: the training's run has no parent.",
        choice.study_run_id,
        choice.study,
    )
    return None


def evaluate_model(model: Path, folder: Path) -> dict[str, Any]:
    """Score a saved model on test again, log it, and return the command's answer.

    Raises:
        InputError: if the model or one of its files is missing; if a file is damaged, or the data are no longer those that the
            model was trained on; if MLflow is required and cannot be reached.
    """
    path = saved_model.find(model, folder)
    saved = saved_model.load(path)
    processed = pipeline.prepare(saved.config, folder)
    if processed.fingerprint != saved.metrics.get("fingerprint"):
        raise InputError(
            path,
            "must be evaluated on the data it was trained on",
            f"others now at {saved.config.data.source}",
            "Bring back the data, or train the model again.",
        )
    tracking = open_tracking(load_config(saved.config), folder)
    torch.set_num_threads(max(1, int(saved.config.resources.cpu)))
    with progress("Scoring test"):
        scores = evaluate(
            ModelScorer(saved.model, len(saved.item_ids)),
            load(processed, "test", False),
            saved.config,
        )
    append_test_scores(folder, "evaluate", path, scores)
    if tracking:
        tags = {
            "kind": "evaluation",
            "model": saved.config.model.name,
            "dataset": saved.config.data.source,
            "state": "complete",
        }
        run_id = tracking.start_run(
            f"{path.name} evaluation", {**tags, **version_tags()}, trial_params(saved.config)
        )
        tracking.log_metrics(run_id, {f"test_{name}": value for name, value in scores.items()})
        tracking.end_run(run_id)
    return {"protocol": protocol_name(saved.config), "test": scores}


def _train_seeds(
    config: Config,
    processed: Processed,
    n_epochs: int | None,
    seeds: list[int],
    noted: tuple[Path, Path] | None,
) -> tuple[list[Trained], dict[str, Any], Interactions]:
    """Train with each seed, and give the data trained on too.

    `noted`: the folder where each scoring of test is noted and the model it is noted for, None to validate. The number of epochs
    that nobody chose before is found once, by the first seed on validation.
    """
    fixed = not config.training.resample_negatives
    if noted is None:
        data = load(processed, "validation", fixed)
        trained = list(placement.run(train_on_validation, config, data, seeds, n_epochs))
        return trained, _score_baselines(data, config), data

    def train_held_out() -> Trained:
        return next(
            placement.run(
                train_on_validation, config, load(processed, "validation", fixed), seeds[:1], None
            )
        )

    n_epochs = n_epochs or find_n_epochs(config, train_held_out)
    data = load(processed, "test", False)
    trained = []
    for one in placement.run(train_for_test, config, data, seeds, n_epochs):
        trained.append(one)
        append_test_scores(noted[0], "train", noted[1], trained[-1].metrics)
    return trained, _score_baselines(data, config), data


def _score_baselines(data: Interactions, config: Config) -> dict[str, Any]:
    with progress("Scoring baselines"):
        return score_baselines(data, config)


def _pairs_of(data: Interactions) -> UserItemIndex:
    """What each user has interacted with in the parts that were read."""
    known, held_out = data.seen, data.held_out
    assert held_out is not None
    user = np.concatenate([known.users(), held_out.user, held_out.low_user])
    item = np.concatenate([known.items, held_out.item, held_out.low_item])
    return index_pairs(user, item, data.n_users, data.n_items)


def _save(
    path: Path,
    config: Config,
    processed: Processed,
    trained: Trained,
    metrics: Mapping[str, Any],
    *,
    seen: UserItemIndex,
    is_trained: npt.NDArray[np.bool_],
) -> None:
    saved = SavedModel(
        config=config,
        model=trained.model,
        user_ids=user_ids(processed),
        item_ids=item_ids(processed),
        titles=item_titles(processed),
        seen=seen,
        is_trained=is_trained,
        metrics=metrics,
    )
    saved_model.save(path, saved)
