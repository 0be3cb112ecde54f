"""One run of the tune command: check everything, run the study, tell its outcome.

Stands between the command line and the parts of the search. Nothing of a study is written before all checks have passed.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import ray
from ray.tune import Callback

from recsys.config import Config
from recsys.config_files import config_yaml, dump_yaml
from recsys.data.processed import Processed, load, resolve
from recsys.search import study
from recsys.search.lease import hold
from recsys.search.record import StudyRecord
from recsys.search.resources import slots
from recsys.search.space import SearchSpace
from recsys.search.study_files import leaderboard_row, make_study, reopen, require_same, study_folder, write_results
from recsys.search.study_storage import Start
from recsys.search.summaries import TrialSummary, best_trial, count_states, ranked
from recsys.tracking.callback import StudyCallback
from recsys.tracking.runs import Tracking, open_tracking, version_tags
from recsys.training.batches import parts_of_epoch

_SAMPLE_TRIALS = 3


@dataclass(frozen=True)
class Plan:
    """A search that has passed every check.

    `folder`: the command's `--dir`. `concurrency`: trials at the same time. `goes_on`: whether the study was started before.
    """

    name: str
    folder: Path
    config: Config
    space: SearchSpace
    processed: Processed
    start: Start
    concurrency: int
    goes_on: bool

    @property
    def study_folder(self) -> Path:
        """Where the study lies."""
        return study_folder(self.folder, self.name)


def make_plan(
    config: Config,
    space: SearchSpace,
    name: str,
    folder: Path,
    processed: Processed,
    *,
    decided: Iterable[str] = (),
    goes_on: bool = False,
) -> Plan:
    """Check the request for resources on the connected cluster and, where a study goes on, that it is the same.

    Raises:
        ValueError: if no node can meet the request, or the study was started otherwise.
    """
    config = resolve(config, processed.manifest)
    start = Start(processed.fingerprint, parts_of_epoch(processed.manifest.n_train), tuple(sorted(decided)))
    if goes_on:
        require_same(study_folder(folder, name), config, space, start)
    return Plan(name, folder, config, space, processed, start, slots(config), goes_on)


@dataclass(frozen=True)
class Result:
    """The outcome as the command tells it.

    `answer`: the JSON object without the command's own time. `summaries`: the trials from the best to the worst.
    """

    answer: dict[str, Any]
    summaries: list[TrialSummary]
    interrupted: bool


def run(plan: Plan) -> Result:
    """Run the study and write its results.

    Raises:
        ValueError: if a file of the processed data is damaged.
        ConnectionError: if MLflow is required and cannot be reached.
        BlockingIOError: if another process runs the study.
    """
    data = ray.put(load(plan.processed, "validation", not plan.config.training.resample_negatives))
    tracking = open_tracking(plan.config, plan.folder)
    if not plan.goes_on:
        make_study(plan.study_folder, plan.config, plan.space, plan.start)
    with hold(plan.study_folder):
        return _run(plan, data, tracking)


def _run(plan: Plan, data: Any, tracking: Tracking | None) -> Result:
    record = reopen(plan.study_folder, plan.config, plan.space)
    parent, callbacks = None, list[Callback]()
    if tracking:
        parent = _start_parent(tracking, plan)
        callbacks.append(StudyCallback(tracking, record, plan.name, parent, plan.config.data.source))
    outcome = study.search(plan.study_folder, record, plan.config, data, callbacks, concurrency=plan.concurrency)
    write_results(plan.study_folder, record, plan.config, outcome.summaries)
    if tracking and parent:
        _end_parent(tracking, parent, outcome)
    return Result(_answer(plan, outcome, tracking, parent), ranked(outcome.summaries), outcome.interrupted)


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
    tracking.log_table(parent, [leaderboard_row(summary) for summary in ranked(outcome.summaries)], "leaderboard.json")
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
