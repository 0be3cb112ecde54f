"""One run of a search: create or resume the study, run its trials, write and return the results.

After `plan`: nothing of a study is written before all checks of the plan have passed.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray.tune import Callback

from recsys.console.verbosity import progress
from recsys.data.processed import load
from recsys.errors import InputError
from recsys.search.plan import Plan
from recsys.search.record.lease import hold
from recsys.search.record.summaries import TrialSummary, best_trial, count_states, ranked
from recsys.search.record.uploads import Uploads
from recsys.search.study_log import end_log, start_log
from recsys.search.tuning.mlflow_callback import StudyCallback
from recsys.search.tuning.run import Outcome, search
from recsys.tracking.connection import open_tracking
from recsys.tracking.runs import Tracking
from recsys.tracking.study_runs import StudyRuns, open_study_runs
from recsys.tracking.uri import tracking_uri

_INTERRUPTED_SECONDS = 2.0
"""Time for which an interrupted search sends to MLflow; the rest stays in the outbox."""


@dataclass(frozen=True)
class Result:
    """The outcome of a search.

    `answer`: the command's JSON object, without its own time. `summaries`: the trials from the best
    to the worst.
    """

    answer: dict[str, Any]
    summaries: list[TrialSummary]
    interrupted: bool


def run(plan: Plan, on_start: Callable[[], object] = lambda: None) -> Result:
    """Run the study and write its results.

    Args:
        plan: the search.
        on_start: called once the study exists and this process holds its lease.

    Raises:
        InputError: if a file of the processed data is damaged; if MLflow is required and cannot be
            reached; if another process runs the study.
    """
    data = ray.put(load(plan.processed, "validation", not plan.config.training.resample_negatives))
    tracking = open_tracking(plan.config, plan.folder)
    if not plan.resume:
        plan.study.create(plan.config, plan.space, plan.origin)
    with hold(plan.study.path) as is_lost:
        on_start()
        return _run(plan, data, tracking, is_lost)


def _run(plan: Plan, data: Any, tracking: Tracking | None, is_lost: threading.Event) -> Result:
    config, folder = plan.config, plan.study.path
    record = plan.study.resume(config, plan.space)
    runs = open_study_runs(config, plan.folder, folder, tracking, record.attach_run)
    with Uploads(folder, runs, is_lost) as uploads:
        start_log(runs, plan, record)
        uploads.upload()
        if config.tracking.required:
            _require_logged(runs, plan)
        callbacks: list[Callback] = [StudyCallback(runs, record)]
        outcome = search(
            folder,
            record,
            config,
            data,
            callbacks,
            slots=plan.slots,
            sizes=plan.processed.manifest,
            after_upload=uploads.after_next,
        )
        if is_lost.is_set():  # the results are another process's to write
            raise KeyboardInterrupt
        with progress("Writing the results"):
            limit = _INTERRUPTED_SECONDS if outcome.interrupted else None
            uploads.upload()
            is_sent = runs.flush(limit)
            # With the runs of the last trials.
            outcome = replace(outcome, summaries=record.summaries())
            plan.study.write_results(record, outcome.summaries)
            end_log(runs, outcome)
            uploads.upload()
            runs.close(limit if is_sent else 0.0)  # wait for a server only once
    answer = _answer(plan, outcome, runs.run_id)
    return Result(answer, ranked(outcome.summaries), outcome.interrupted)


def _require_logged(runs: StudyRuns, plan: Plan) -> None:
    """Check that MLflow has the study's run.

    Raises:
        InputError: if it does not.
    """
    if not runs.flush():
        reason = "" if runs.connection_error is None else f" ({runs.connection_error})"
        raise InputError(
            "tracking.uri",
            "must be a reachable MLflow store",
            f"{tracking_uri(plan.config, plan.folder)}, which takes no run{reason}",
            "Check its server or its disk, or set tracking.required=false to run without it.",
        ) from runs.connection_error


def _on_all_users(summary: TrialSummary) -> dict[str, Any] | None:
    found = summary.on_all_users
    if found is None:
        return None
    return {"value": found.value, "standard_error": found.standard_error}


def _answer(plan: Plan, outcome: Outcome, run_id: str | None) -> dict[str, Any]:
    best = best_trial(outcome.summaries)
    return {
        "study": plan.study.name,
        "counts": count_states(outcome.summaries),
        "trials": [
            {
                "id": str(s.number),
                "state": s.state,
                "epochs": s.epochs,
                "value": s.value,
                "standard_error": s.standard_error,
                "on_all_users": _on_all_users(s),
                "params": s.params,
                "nodes": s.nodes,
            }
            for s in outcome.summaries
        ],
        "best": best
        and {
            "trial": str(best.number),
            "value": best.value,
            "standard_error": best.standard_error,
            "on_all_users": _on_all_users(best),
            "epoch": best.epoch,
            "params": best.params,
            "config": str(plan.study.path / "best.yaml"),
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
