"""The train command's work: train a choice, score it, save the model and log the run."""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from recsys.config.schema import Config
from recsys.data.interactions import Interactions
from recsys.data.negatives import UserItemIndex, index_pairs
from recsys.data.preprocessing import pipeline
from recsys.data.processed import (
    Processed,
    all_pairs,
    item_ids,
    item_titles,
    user_ids,
)
from recsys.data.resolve import resolve_trained
from recsys.evaluation.evaluate import protocol_name
from recsys.final import placement
from recsys.final.choose import Choice
from recsys.final.log import append_test_scores, log_training
from recsys.final.seeds import Trainings, train_seeds_for_test, train_seeds_for_validation
from recsys.models import Model
from recsys.serving import model_folder, saved_model
from recsys.serving.saved_model import SavedModel
from recsys.tracking.connection import open_tracking
from recsys.tracking.runs import Tracking


def train(
    choice: Choice, folder: Path, out: Path | None, *, n_seeds: int, validate: bool
) -> dict[str, Any]:
    """Train the choice, save the first seed's model, log the run, and return the command's answer.

    Args:
        choice: the config to train.
        folder: the folder that holds the processed data, the models and `test_scores.jsonl`.
        out: the model's folder; None for `folder`/models/NAME, or NAME-validate if `validate`.
        n_seeds: how many trainings; their seeds count up from the choice's.
        validate: whether to train on train alone and score validation instead of test.

    Raises:
        InputError: if the config, the data and the machines do not fit together; if the model's
            folder holds something else; if there is no such cluster; if MLflow is required and
            cannot be reached.
    """
    path = out or folder / "models" / (f"{choice.name}-validate" if validate else choice.name)
    processed, config, tracking = prepare(choice.config, folder, path)
    choice = dataclasses.replace(choice, config=config)
    seeds = [choice.seed + offset for offset in range(n_seeds)]
    if validate:
        trainings = train_seeds_for_validation(choice, processed, seeds)
    else:
        note_scores = partial(append_test_scores, folder, "train", path)
        trainings = train_seeds_for_test(choice, processed, seeds, note_scores)
    first = trainings.first
    metrics = {"seed": seeds[0], "epochs": first.n_epochs, trainings.split: first.metrics}
    saved = describe_model(config, first.model, metrics, processed=processed, data=trainings.data)
    saved_model.save(path, saved)
    run_id = log_training(tracking, choice, trainings, path) if tracking else None
    return _answer(choice, trainings, path, run_id)


def prepare(config: Config, folder: Path, path: Path) -> tuple[Processed, Config, Tracking | None]:
    """Check what a training needs, and return the data, the resolved config and MLflow.

    Takes `folder` and raises as `train`; `path` is the folder of the saved model.
    """
    model_folder.require_replaceable(path)
    placement.require_device(config)
    processed = pipeline.prepare(config, folder)
    config = resolve_trained(config, processed.manifest)
    return processed, config, open_tracking(config, folder)


def describe_model(
    config: Config,
    model: Model,
    metrics: Mapping[str, Any],
    *,
    processed: Processed,
    data: Interactions,
    members: Sequence[Config] = (),
) -> SavedModel:
    """Return a trained model with the data's own ids, as it is saved.

    `data`: what it was trained on, and the split that scored it. For the others see `SavedModel`.
    """
    return SavedModel(
        config=config,
        members=members,
        model=model,
        user_ids=user_ids(processed),
        item_ids=item_ids(processed),
        titles=item_titles(processed),
        seen=all_pairs(processed) if "test" in metrics else _pairs_of(data),
        is_trained=np.bincount(data.histories().user, minlength=data.n_users) > 0,
        metrics={
            "fingerprint": processed.fingerprint,
            "n_positives": len(data.user),
            "n_pairs": data.n_pairs,
            "positive_threshold": processed.manifest.settings["data.positive_threshold"],
            **metrics,
        },
    )


def _pairs_of(data: Interactions) -> UserItemIndex:
    """Return the items that each user has interacted with in train or the held-out split."""
    seen, held_out = data.seen, data.held_out
    assert held_out is not None
    user = np.concatenate([seen.users(), held_out.user, held_out.low_user])
    item = np.concatenate([seen.items, held_out.item, held_out.low_item])
    return index_pairs(user, item, data.n_users, data.n_items)


def _answer(choice: Choice, trainings: Trainings, path: Path, run_id: str | None) -> dict[str, Any]:
    """Return the train command's JSON object."""
    split = trainings.split
    return {
        "model": str(path),
        "epochs": trainings.first.n_epochs,
        "protocol": protocol_name(choice.config),
        split: trainings.mean,
        "seeds": [
            {"seed": seed, split: trained.metrics}
            for seed, trained in zip(trainings.seeds, trainings.trained, strict=True)
        ],
        "baselines": trainings.baselines,
        "mlflow_run_id": run_id,
    }
