"""One run of the tune command: check everything, run the study, tell its outcome.

Stands between the command line and the parts of the search. Nothing of a study is written before all checks have passed.
"""

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import ray
from ray.tune import Callback

from recsys.config import Config, get_value
from recsys.config_files import config_yaml, dump_yaml
from recsys.data import pipeline
from recsys.data.processed import Processed, load, resolve
from recsys.search import study
from recsys.search.record import StudyRecord, TrialSummary, best_trial, count_states
from recsys.search.resources import slots
from recsys.search.space import SearchSpace
from recsys.search.space_file import read_space
from recsys.tracking.callback import StudyCallback
from recsys.tracking.runs import Tracking, open_tracking, version_tags

_SAMPLE_TRIALS = 3


@dataclass(frozen=True)
class Plan:
    """A search that has passed every check. `folder`: the command's `--dir`; `concurrency`: trials at the same time."""

    name: str
    folder: Path
    config: Config
    space: SearchSpace
    processed: Processed
    concurrency: int

    @property
    def study_folder(self) -> Path:
        """Where the study lies."""
        return study.study_folder(self.folder, self.name)


def read_effective_space(file: Path, config: Config, decided: Iterable[str]) -> SearchSpace:
    """The file's space less the paths that flags and `--set` decided, each with a note on standard error.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: listing every mistake, or if nothing is left to search.
    """
    space = read_space(file)
    leaving = [path for path in space.domains if path in set(decided)]
    space = space.without(leaving)
    if not space.domains:
        raise ValueError(f"{file}: must leave a parameter to search, but got all set. Take one from --set, or use recsys.train.")
    space.check_with(config)
    for path in leaving:
        print(f"note: {path} is set to {get_value(config, path)} and leaves the search space.", file=sys.stderr)
    return space


def make_plan(config: Config, space: SearchSpace, name: str, folder: Path) -> Plan:
    """Prepare the data and check the study's name and the resources.

    Raises:
        ValueError: if the name, the data or the request for resources is wrong.
        FileExistsError: if there is a study of this name.
        FileNotFoundError: if the data is missing.
    """
    study.require_new(study.study_folder(folder, name))
    processed = pipeline.prepare(config, folder)
    config = resolve(config, processed.manifest)
    pipeline.connect(config)
    return Plan(name, folder, config, space, processed, slots(config))


@dataclass(frozen=True)
class Result:
    """The outcome as the command tells it: `answer` is the JSON object without the command's own time."""

    answer: dict[str, Any]
    interrupted: bool


def run(plan: Plan) -> Result:
    """Run the study and write its results.

    Raises:
        ConnectionError: if MLflow is required and cannot be reached.
    """
    tracking = open_tracking(plan.config, plan.folder)
    record = study.create(plan.study_folder, plan.config, plan.space)
    parent, callbacks = None, list[Callback]()
    if tracking:
        parent = _start_parent(tracking, plan)
        callbacks.append(StudyCallback(tracking, record, plan.name, parent, plan.config.data.source))
    data = ray.remote(load).remote(plan.processed, "validation", not plan.config.training.resample_negatives)
    outcome = study.search(plan.study_folder, record, plan.config, data, callbacks)
    study.write_results(plan.study_folder, record, plan.config, outcome.summaries)
    if tracking and parent:
        _end_parent(tracking, parent, outcome)
    return Result(_answer(plan, outcome, tracking, parent), outcome.interrupted)


def _start_parent(tracking: Tracking, plan: Plan) -> str:
    counts = {f"data.{name}": str(count) for name, count in plan.processed.manifest.counts().items()}
    tags = {"kind": "study", "study": plan.name, "state": "running", "dataset": plan.config.data.source}
    texts = {"config": config_yaml(plan.config), "space": dump_yaml(plan.space.tree())}
    tags |= {"data.fingerprint": plan.processed.fingerprint, **counts, **version_tags(), **texts}
    parent = tracking.start_run(plan.name, tags, {})
    for name, text in texts.items():
        tracking.log_text(parent, text, f"{name}.yaml")
    return parent


def _end_parent(tracking: Tracking, parent: str, outcome: study.Outcome) -> None:
    for summary in outcome.summaries:
        if summary.state == "unfinished" and summary.run_id:
            tracking.end_trial(summary.run_id, summary.state)
    tracking.log_table(parent, [study.leaderboard_row(summary) for summary in ranked(outcome.summaries)], "leaderboard.json")
    best = best_trial(outcome.summaries)
    if best:
        tracking.log_metrics(parent, best.metrics, step=best.epoch or 0)
        tracking.set_tags(parent, {"best_trial": best.number})
    tracking.set_tags(parent, {"state": "interrupted" if outcome.interrupted else "complete"})
    tracking.end_run(parent, "KILLED" if outcome.interrupted else "FINISHED")


def _answer(plan: Plan, outcome: study.Outcome, tracking: Tracking | None, parent: str | None) -> dict[str, Any]:
    best = best_trial(outcome.summaries)
    return {
        "study": plan.name,
        "counts": count_states(outcome.summaries),
        "trials": [
            {"id": str(s.number), "state": s.state, "epochs": s.epochs, "value": s.value, "params": s.params}
            for s in outcome.summaries
        ],
        "best": best
        and {
            "trial": str(best.number),
            "value": best.value,
            "epoch": best.epoch,
            "params": best.params,
            "config": str(plan.study_folder / "best.yaml"),
        },
        "wall_seconds": outcome.wall_seconds,
        "busy_seconds": outcome.busy_seconds,
        "concurrency": plan.concurrency,
        "mlflow": tracking and {"tracking_uri": tracking.uri, "experiment": tracking.experiment, "parent_run_id": parent},
    }


def ranked(summaries: list[TrialSummary]) -> list[TrialSummary]:
    """Trials from the best value to the worst, those that may not be chosen at the end."""
    return sorted(summaries, key=lambda s: (not s.choosable, -(s.value or 0.0), s.number))


def describe_plan(plan: Plan) -> dict[str, Any]:
    """What a dry run shows: the effective config, sample trials, resources and the size of the data."""
    sampled = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=plan.config.study.seed))
    record = StudyRecord(sampled, plan.config, plan.space)
    record.enqueue_first_points()
    counts = plan.processed.manifest.counts()
    cluster = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return {
        "study": plan.name,
        "config": plan.config.model_dump(mode="json"),
        "sample_trials": [plan.space.suggest(sampled.ask(), plan.config) for _ in range(_SAMPLE_TRIALS)],
        "resources": {
            "cluster": {kind: cluster.get(kind, 0.0) for kind in ("CPU", "GPU")},
            "trial": {"cpu": plan.config.resources.cpu, "gpu": plan.config.resources.gpu},
            "concurrency": plan.concurrency,
        },
        "data": {"users": counts["n_users"], "items": counts["n_items"], "interactions": counts["n_interactions"]},
    }
