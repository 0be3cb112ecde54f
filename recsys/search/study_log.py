"""The study's run in MLflow: started or resumed, completed with missing trials, and ended.

`session` calls it before and after the trials; `tuning.mlflow_callback` logs the trials.
"""

from recsys.config.files import config_yaml, dump_yaml
from recsys.config.schema import Config
from recsys.search.plan import Plan
from recsys.search.record.running_trial import trial_seed
from recsys.search.record.study_record import StudyRecord
from recsys.search.record.summaries import best_trial, leaderboard_row, ranked
from recsys.search.tuning.run import Outcome
from recsys.storage.s3 import url_of
from recsys.tracking.study_runs import StudyRuns
from recsys.tracking.versions import version_tags


def start_log(runs: StudyRuns, plan: Plan, record: StudyRecord) -> None:
    """Start the study's run, or resume it, and log what the record has and MLflow lacks."""
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
    log_missing(runs, plan.config, record, in_s3=url_of(plan.study.path) is not None)


def log_missing(
    runs: StudyRuns, config: Config, record: StudyRecord, *, in_s3: bool = False
) -> None:
    """Log what the record has and MLflow lacks, since an earlier process was killed.

    An unfinished trial resumes from its checkpoint and logs the steps after it by itself. Steps
    before it can be missing in S3 alone, where the record may be some seconds ahead of the outbox.
    A trial without a step may not have its parameters yet.
    """
    for summary in record.summaries():
        number = summary.number
        values = record.values_of(number)
        resumes = summary.state == "unfinished" and not (in_s3 and values)
        if resumes or runs.has_ended(number, summary.state):
            continue
        runs.start_trial(number, record.config_of(number), trial_seed(config.study.seed, number))
        for step, value in values.items():
            epoch, n_further_segments = divmod(step, record.n_segments)
            is_whole = n_further_segments == 0
            is_best = is_whole and epoch == summary.epoch
            metrics = summary.metrics if is_best else {config.metric_name: value}
            runs.log_step(number, step, epoch, is_whole, metrics)
        if summary.state != "unfinished":
            runs.end_trial(number, summary.state)


def end_log(runs: StudyRuns, outcome: Outcome) -> None:
    """End the runs of unfinished trials and the study's run, with the best trial and all trials."""
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
