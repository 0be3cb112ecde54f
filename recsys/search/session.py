"""One run of the tune command: check everything, run the study, tell its outcome.

Stands between the command line and the parts of the search. Nothing of a study is written before all checks have passed.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import optuna
import ray
from ray.tune import Callback

from recsys.cluster.resources import Slots
from recsys.cluster.shared_paths import require_on_all_nodes
from recsys.config.files import config_yaml, dump_yaml
from recsys.config.schema import Config
from recsys.data.processed import Processed, load, resolve
from recsys.errors import InputError
from recsys.search.record.lease import hold
from recsys.search.record.record import StudyRecord, trial_seed
from recsys.search.record.study_files import (
    leaderboard_row,
    make_study,
    reopen,
    require_same,
    study_folder,
    write_results,
)
from recsys.search.record.study_storage import Start
from recsys.search.record.summaries import TrialSummary, best_trial, count_states, ranked
from recsys.search.record.uploads import Uploads
from recsys.search.space.space import SearchSpace
from recsys.search.tuning.mlflow_callback import StudyCallback
from recsys.search.tuning.run import Outcome, search
from recsys.storage.s3 import url_of
from recsys.tracking.connection import open_tracking
from recsys.tracking.runs import Tracking
from recsys.tracking.study_runs import StudyRuns, open_study_runs
from recsys.tracking.uri import tracking_uri
from recsys.tracking.versions import version_tags
from recsys.training.segments import count_segments

_SAMPLE_TRIALS = 3
_INTERRUPTED_SECONDS = 2.0
"""How long an interrupted command goes on sending to MLflow; what is left then is kept."""


@dataclass(frozen=True)
class Plan:
    """A search that has passed every check.

    `folder`: the command's `--dir`. `slots`: how many trials may run at a time. `goes_on`: whether the study was started before.
    """

    name: str
    folder: Path
    config: Config
    space: SearchSpace
    processed: Processed
    start: Start
    slots: Slots
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
    """Check the request for resources and the folder on the connected cluster and, where a study goes on, that it is the same.

    Raises:
        InputError: if no node can meet the request, or the study was started otherwise; if a node does not see the folder.
    """
    config = resolve(config, processed.manifest)
    require_on_all_nodes("folder", folder.absolute())
    start = Start(
        processed.fingerprint, count_segments(processed.manifest.n_train), tuple(sorted(decided))
    )
    if goes_on:
        require_same(study_folder(folder, name), config, space, start)
    return Plan(name, folder, config, space, processed, start, Slots(config), goes_on)


@dataclass(frozen=True)
class Result:
    """The outcome as the command tells it.

    `answer`: the JSON object without the command's own time. `summaries`: the trials from the best to the worst.
    """

    answer: dict[str, Any]
    summaries: list[TrialSummary]
    interrupted: bool


def run(plan: Plan, begin: Callable[[], object] = lambda: None) -> Result:
    """Run the study and write its results.

    Args:
        plan: what has passed every check.
        begin: called once the study is there and this process holds it.

    Raises:
        InputError: if a file of the processed data is damaged; if MLflow is required and cannot be reached; if another process
            runs the study.
    """
    data = ray.put(load(plan.processed, "validation", not plan.config.training.resample_negatives))
    tracking = open_tracking(plan.config, plan.folder)
    if not plan.goes_on:
        make_study(plan.study_folder, plan.config, plan.space, plan.start)
    with hold(plan.study_folder):
        begin()
        return _run(plan, data, tracking)


def _run(plan: Plan, data: Any, tracking: Tracking | None) -> Result:
    record = reopen(plan.study_folder, plan.config, plan.space)
    runs = open_study_runs(plan.config, plan.folder, plan.study_folder, tracking, record.attach_run)
    with Uploads(plan.study_folder, runs) as uploads:
        _start_runs(runs, plan, record, uploads)
        callbacks: list[Callback] = [StudyCallback(runs, record)]
        outcome = search(
            plan.study_folder,
            record,
            plan.config,
            data,
            callbacks,
            slots=plan.slots,
            after_upload=uploads.after_next,
        )
        limit = _INTERRUPTED_SECONDS if outcome.interrupted else None
        uploads.now()
        answered = runs.flush(limit)
        outcome = replace(outcome, summaries=record.summaries())  # with the runs of the last trials
        write_results(plan.study_folder, record, outcome.summaries)
        _end_runs(runs, outcome)
        uploads.now()
        runs.close(limit if answered else 0.0)  # a server is waited for once
    return Result(
        _answer(plan, outcome, runs.run_id), ranked(outcome.summaries), outcome.interrupted
    )


def _start_runs(runs: StudyRuns, plan: Plan, record: StudyRecord, uploads: Uploads) -> None:
    """Begin the study's run in MLflow, or let it go on.

    Raises:
        InputError: if it is required and cannot be made.
    """
    counts = {
        f"data.{name}": str(count) for name, count in plan.processed.manifest.counts().items()
    }
    texts = {"config": config_yaml(plan.config), "space": dump_yaml(plan.space.tree())}
    tags = {"dataset": plan.config.data.source, "data.fingerprint": plan.processed.fingerprint}
    if runs.is_new:
        runs.start(
            {**tags, **counts, **version_tags(), **texts},
            {f"{name}.yaml": text for name, text in texts.items()},
        )
    else:
        runs.resume()
    _tell_what_was_not_told(runs, plan.config, record, in_s3=url_of(plan.study_folder) is not None)
    uploads.now()
    if plan.config.tracking.required and not runs.flush():
        reason = "" if runs.connection_error is None else f" ({runs.connection_error})"
        raise InputError(
            "tracking.uri",
            "must be a reachable MLflow store",
            f"{tracking_uri(plan.config, plan.folder)}, which takes no run{reason}",
            "See to its server or its disk, or run without it: --set tracking.required=false.",
        ) from runs.connection_error


def _tell_what_was_not_told(
    runs: StudyRuns, config: Config, record: StudyRecord, *, in_s3: bool = False
) -> None:
    """What the record has and a process that was killed did not live to tell MLflow.

    A trial that goes on from its checkpoint tells by itself what came after it. What came before may be missing in S3 alone,
    where the record can be some seconds ahead.
    """
    for summary in record.summaries():
        number = summary.number
        if runs.has_ended(number, summary.state) or (summary.state == "unfinished" and not in_s3):
            continue
        runs.start_trial(number, record.config_of(number), trial_seed(config.study.seed, number))
        for step, value in record.values_of(number).items():
            epoch, part = divmod(step, record.parts)
            metrics = (
                summary.metrics
                if part == 0 and epoch == summary.epoch
                else {config.metric_name: value}
            )
            runs.log_step(number, step, epoch, part == 0, metrics)
        if summary.state != "unfinished":
            runs.end_trial(number, summary.state)


def _end_runs(runs: StudyRuns, outcome: Outcome) -> None:
    for summary in outcome.summaries:
        if summary.state == "unfinished":
            runs.end_trial(summary.number, summary.state)
    best = best_trial(outcome.summaries)
    runs.end(
        "interrupted" if outcome.interrupted else "complete",
        None
        if best is None
        else {"trial": best.number, "epoch": best.epoch, "metrics": best.metrics},
        [leaderboard_row(summary) for summary in ranked(outcome.summaries)],
    )


def _answer(plan: Plan, outcome: Outcome, run_id: str | None) -> dict[str, Any]:
    best = best_trial(outcome.summaries)
    return {
        "study": plan.name,
        "counts": count_states(outcome.summaries),
        "trials": [
            {
                "id": str(s.number),
                "state": s.state,
                "epochs": s.epochs,
                "value": s.value,
                "params": s.params,
                "nodes": s.nodes,
            }
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
        "concurrency": plan.slots.most,
        "mlflow": run_id
        and {
            "tracking_uri": tracking_uri(plan.config, plan.folder),
            "experiment": plan.config.tracking.experiment,
            "parent_run_id": run_id,
        },
    }


def describe_plan(plan: Plan) -> dict[str, Any]:
    """What a dry run shows: the effective config, sample trials, resources and the size of the data."""
    sampled = optuna.create_study(
        sampler=optuna.samplers.RandomSampler(seed=plan.config.study.seed)
    )
    record = StudyRecord(sampled, plan.config, plan.space)
    record.enqueue_first_points()
    counts = plan.processed.manifest.counts()
    cluster = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return {
        "study": plan.name,
        "config": plan.config.model_dump(mode="json"),
        "sample_trials": [record.summary(record.ask()[0]).params for _ in range(_SAMPLE_TRIALS)],
        "resources": {
            "cluster": {kind: cluster.get(kind, 0.0) for kind in ("CPU", "GPU")},
            "trial": {"cpu": plan.config.resources.cpu, "gpu": plan.config.resources.gpu},
            "concurrency": plan.slots.most,
        },
        "data": {
            "users": counts["n_users"],
            "items": counts["n_items"],
            "interactions": counts["n_interactions"],
        },
    }
