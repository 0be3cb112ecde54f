"""A small data set with structure to learn, and searches on it."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import ray
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from ray.tune import Callback
from ray.tune.experiment import Trial

from recsys.config.schema import Config, replace_values
from recsys.data.preprocessing.pipeline import prepare
from recsys.data.processed import load
from recsys.search.plan import make_plan
from recsys.search.record.origin import StudyOrigin
from recsys.search.record.study_folder import StudyFolder
from recsys.search.record.study_record import StudyRecord
from recsys.search.record.summaries import TrialSummary
from recsys.search.space.space_file import parse_space
from recsys.search.tuning import run
from recsys.search.tuning.messages import Report, message_of
from recsys.search.tuning.mlflow_callback import StudyCallback
from recsys.tracking.connection import open_tracking
from recsys.tracking.study_runs import open_study_runs

N_USERS, N_ITEMS = 60, 80
SPACE = {
    "parameters": {
        "model.name": {"choices": ["inner_product", "gmf", "mlp"]},
        "model.embedding_dim": {"low": 4, "high": 16},
        "model.n_layers": {"low": 1, "high": 2, "when": {"model.name": ["mlp"]}},
        "training.learning_rate": {"low": 1e-3, "high": 3e-1, "log": True},
    },
    "warm_start": [
        {"model.name": "inner_product", "model.embedding_dim": 12, "training.learning_rate": 0.05}
    ],
}


def ratings_csv() -> str:
    """Return ratings of 60 users, each of whom likes a quarter of the 80 items.

    A user has 10 ratings of 5 among the liked items, and 4 ratings of 2 or 4 among the others.
    """
    generator = random.Random(0)
    lines = ["user_id,item_id,rating,timestamp"]
    for user in range(N_USERS):
        liked = generator.sample(range(user % 4, N_ITEMS, 4), 10)
        others = generator.sample([item for item in range(N_ITEMS) if item % 4 != user % 4], 4)
        rated = [(item, 5) for item in liked] + [
            (item, generator.choice([2, 4])) for item in others
        ]
        generator.shuffle(rated)
        lines += [
            f"{user},{item},{rating},{1000 + time}" for time, (item, rating) in enumerate(rated)
        ]
    return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Searched:
    """A search that has ended, with the folder of its study."""

    folder: Path
    config: Config
    record: StudyRecord
    outcome: run.Outcome

    @property
    def trials(self) -> dict[int, TrialSummary]:
        return {summary.number: summary for summary in self.outcome.summaries}


def search(
    ratings: Path,
    folder: Path,
    values: Mapping[str, object],
    space: Mapping[str, Any] = SPACE,
    callbacks: Sequence[Callback] = (),
    *,
    tracked: bool = False,
) -> Searched:
    """Run a study `s` in `folder`.

    Args:
        ratings: the file with the ratings.
        folder: the results' folder.
        values: config paths and values; the defaults are one trial at a time, of at most 3 epochs.
        space: the search space.
        callbacks: further callbacks of Tune.
        tracked: log the trials to the folder's MLflow database, in the experiment `recsys`.
    """
    base = {
        "data.source": str(ratings),
        "training.max_epochs": 3,
        "training.batch_size": 128,
        "study.max_concurrent": 1,
    }
    config = replace_values(Config(), {**base, **values})
    study = StudyFolder.find(folder, "s")
    study.require_new()
    plan = make_plan(
        study, folder, config, parse_space(space, "space.yaml"), prepare(config, folder)
    )
    study.create(plan.config, plan.space, StudyOrigin())
    record = study.resume(plan.config, plan.space)
    data = ray.put(load(plan.processed, "validation", negatives=False))
    tracking = open_tracking(Config(), folder) if tracked else None
    listeners, slots = list(callbacks), plan.slots
    if tracking:
        runs = open_study_runs(Config(), folder, study.path, tracking, record.attach_run)
        runs.start({}, {})
        listeners.append(StudyCallback(runs, record))
    outcome = run.search(
        study.path,
        record,
        plan.config,
        data,
        listeners,
        slots=slots,
        sizes=plan.processed.manifest,
        gpu_device="cpu",
    )
    if tracking:
        runs.close()
    return Searched(study.path, plan.config, record, outcome)


def open_optuna(study_folder: Path) -> optuna.Study:
    """Open the record with Optuna alone."""
    return optuna.load_study(study_name="study", storage=f"sqlite:///{study_folder / 'optuna.db'}")


def logged_trials(uri: str, experiment: str) -> list[Run]:
    """Return the runs of an experiment's trials by number, found with MLflow alone."""
    client = MlflowClient(tracking_uri=uri)
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    return sorted(
        client.search_runs([found.experiment_id], "tags.kind = 'trial'"),
        key=lambda run: int(run.data.tags["trial"]),
    )


def logged_steps(uri: str, run: Run, metric: str) -> list[int]:
    """Return the steps of a metric's history, in order."""
    return sorted(
        entry.step
        for entry in MlflowClient(tracking_uri=uri).get_metric_history(run.info.run_id, metric)
    )


def violated(study_folder: Path) -> set[int]:
    """Return the numbers of the trials that have a constraint above 0 in the storage."""
    trials = open_optuna(study_folder).trials
    return {
        trial.number for trial in trials if any(value > 0 for value in trial.constraints.values())
    }


class Results(Callback):
    """Callback that stores the trial's number, the epoch and the worker's pid of each result."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int, int]] = []

    def on_trial_result(
        self,
        iteration: int,
        trials: list[Trial],
        trial: Trial,
        result: dict[str, Any],
        **_info: Any,
    ) -> None:
        message = message_of(result)
        epoch = message.epoch if isinstance(message, Report) else 0
        self.seen.append((trial.config["number"], epoch, result["pid"]))

    @property
    def pids(self) -> set[int]:
        return {pid for _, _, pid in self.seen}
