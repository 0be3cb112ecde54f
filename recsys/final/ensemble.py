"""The train command's work for an ensemble: select members, train and save them, log the run."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from recsys.console.verbosity import note, progress
from recsys.data.resolve import resolve_trained
from recsys.data.splits import HeldOutSplit
from recsys.evaluation.baselines import score_baselines
from recsys.evaluation.evaluate import protocol_name
from recsys.final import run
from recsys.final.choose import Choice
from recsys.final.log import append_test_scores, log_ensemble
from recsys.final.members import ScoredEnsemble, select_members, train_members
from recsys.final.selection import Step
from recsys.serving import saved_model

CANDIDATES_PER_STEP = 2
"""Candidates that are trained for each step of the selection."""


def train_ensemble(
    candidates: Sequence[Choice], folder: Path, out: Path | None, *, n_steps: int, validate: bool
) -> dict[str, Any]:
    """Train, save and log the ensemble that a selection finds; return the command's answer.

    Args:
        candidates: trials of one study, its best one first.
        folder: as in `run.train`.
        out: the folder of the saved model; None for STUDY-ensemble in `folder`/models.
        n_steps: the maximum number of steps of the selection.
        validate: whether to save the members as they are selected, trained on train alone, and not
            to score test.

    Raises:
        InputError: as `run.train`.
    """
    best = candidates[0]
    best = replace(best, name=f"{best.study}-ensemble" + ("-validate" if validate else ""))
    path = out or folder / "models" / best.name
    processed, config, tracking = run.prepare(best.config, folder, path)
    torch.set_num_threads(max(1, int(config.resources.cpu)))
    candidates = [
        replace(choice, config=resolve_trained(choice.config, processed.manifest))
        for choice in candidates
    ]
    _note_work(candidates, n_steps, validate=validate)
    steps, scored = select_members(candidates, n_steps, processed)
    splits: dict[HeldOutSplit, ScoredEnsemble] = {"validation": scored}
    if not validate:
        splits["test"] = scored = train_members(candidates, scored.weights, processed)
        append_test_scores(folder, "train", path, scored.scores)
        append_test_scores(folder, "train", Path(f"{best.study}/{best.trial}"), scored.single)
    with progress("Scoring baselines"):
        baselines = score_baselines(scored.data, config)
    metrics = _describe(candidates, steps, splits)
    members = [candidates[place].config for place in scored.weights]
    saved = run.describe_model(
        config, scored.ensemble, metrics, processed=processed, data=scored.data, members=members
    )
    saved_model.save(path, saved)
    run_id = log_ensemble(tracking, best, saved, path) if tracking else None
    protocol = protocol_name(config)
    return {"model": str(path), "protocol": protocol, **metrics} | {
        "baselines": baselines,
        "mlflow_run_id": run_id,
    }


def _describe(
    candidates: Sequence[Choice],
    steps: Sequence[Step],
    splits: Mapping[HeldOutSplit, ScoredEnsemble],
) -> dict[str, Any]:
    """Return the members, the steps of the selection, and the metrics on each scored split."""
    members = [
        {
            **_name(candidates[place]),
            "weight": weight,
            "epochs": candidates[place].n_epochs,
            "seed": candidates[place].seed,
        }
        for place, weight in splits["validation"].weights.items()
    ]
    selection = [
        {"step": number, **_name(candidates[step.candidate]), "value": step.value}
        for number, step in enumerate(steps, start=1)
    ]
    single = {split: scored.single for split, scored in splits.items()}
    return {
        "members": members,
        "selection": selection,
        "single": {"trial": candidates[0].trial, **single},
        **{split: scored.scores for split, scored in splits.items()},
    }


def _name(choice: Choice) -> dict[str, Any]:
    config = choice.config
    return {"trial": choice.trial, "model": config.model.name, "loss": config.training.loss}


def _note_work(candidates: Sequence[Choice], n_steps: int, *, validate: bool) -> None:
    """Print what is going to be trained, and how long the search took for as much."""
    note(f"Trains {len(candidates)} trials on train{_took(candidates)} to select members from.")
    if not validate:
        n_most = min(n_steps + 1, len(candidates))  # the members, and the best trial
        slowest = sorted(candidates, key=lambda choice: choice.seconds or 0.0)[-n_most:]
        note(f"Then trains at most {n_most} on train and validation{_took(slowest)}.")


def _took(choices: Iterable[Choice]) -> str:
    seconds = [choice.seconds for choice in choices if choice.seconds is not None]
    return f" (about {math.ceil(sum(seconds) / 60)} min in the search)" if seconds else ""
