"""Printed texts of the tune command: a plan, what a search begins with, and a result.

With `--json` the command prints a plan and a result as JSON instead.
"""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group
from rich.text import Text

from recsys.config.files import dump_yaml
from recsys.config.schema import get_value, replace_values
from recsys.search.costs.work import expected_seconds
from recsys.search.plan import Plan
from recsys.search.record.summaries import TrialSummary
from recsys.search.space.first_points import base_is_first, first_points
from recsys.search.tuning.pruning import rungs
from recsys.search.tuning.trial_texts import (
    add_trial,
    metric_title,
    show_bytes,
    show_duration,
    show_params,
    trial_table,
)

_SHOWN_TRIALS = 10


def plan_text(plan: Mapping[str, Any]) -> Text:
    """Return the text of a dry run; `plan`: the answer of `describe_plan`."""
    data, resources = plan["data"], plan["resources"]
    trial, cluster = resources["trial"], resources["cluster"]
    lines = [
        dump_yaml(plan["config"]),
        "Sample trials:",
        *(f"  {show_params(params)}" for params in plan["sample_trials"]),
        f"Data: {data['users']:,} users, {data['items']:,} items, "
        f"{data['interactions']:,} interactions",
        f"Resources: {resources['concurrency']} trials at a time, "
        f"each with {trial['cpu']:g} CPU and {trial['gpu']:g} GPU, "
        f"of {cluster['CPU']:g} CPU and {cluster['GPU']:g} GPU",
        "Measured for some seconds, an epoch at the ends of the space:",
        *(_end_text(name, end) for name, end in plan["measured"].items()),
        _estimate_text(plan),
        *(f"Warning: {warning}" for warning in plan["estimate"]["warnings"]),
        "Dry run: no study was created.",
    ]
    return Text("\n".join(lines))


def _end_text(name: str, end: Mapping[str, Any]) -> str:
    memory = "" if end["memory"] is None else f", {show_bytes(end['memory'])} of memory"
    return (
        f"  {name}: {_seconds_text(end['train_seconds'])} to train, "
        f"{_seconds_text(end['rank_seconds'])} to rank{memory} ({show_params(end['params'])})"
    )


def _seconds_text(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else show_duration(seconds)


def _estimate_text(plan: Mapping[str, Any]) -> str:
    estimate, budget = plan["estimate"], plan["config"]["study"]["time_budget"]
    if not estimate["trials"]:
        return "Time: the time budget fits no trial."
    n_trials = (
        f"{estimate['trials']:,} trials of {_seconds_text(estimate['seconds_per_trial'])} "
        f"on average and {estimate['epochs_per_trial']} epochs at most"
    )
    if budget is not None:
        return f"Time: about {n_trials} (the median) fit into {show_duration(budget)}."
    return f"Time: {n_trials} (the median) take about {show_duration(estimate['seconds'])}."


def opening_text(plan: Plan) -> str:
    """Return the lines that say what a search will do: its size, its end, its first trials."""
    config, manifest, concurrency = plan.config, plan.processed.manifest, plan.slots.most
    budget, limit = config.study.time_budget, config.study.trial_limit
    ends = [] if limit is None else [f"{limit} trials"]
    ends += [] if budget is None else [f"for {show_duration(budget)} at most"]
    first = "the unfinished trials" if plan.resume else _first_points_text(plan)
    lines = [
        f"{'Resuming' if plan.resume else 'Searching'} {plan.study.name}: "
        f"{manifest.n_users:,} users, {manifest.n_items:,} items, "
        f"{manifest.n_train:,} positives to train on. It runs {', '.join(ends)}, "
        f"{concurrency} at a time; results in {plan.study.path}.",
        f"First come {first}, then configs that the sampler proposes. A trial reports "
        f"{_reports(plan)}.",
    ]
    if not plan.resume and not config.resources.gpu:
        seconds = _seconds_text(_seconds_to_first_value(plan))
        lines.append(f"On an idle core, the first value comes after about {seconds} of training.")
    return "\n".join(lines)


def _seconds_to_first_value(plan: Plan) -> float:
    """Return the expected time from the start of the first trial to its first report."""
    first, outside = first_points(plan.space, plan.config)[0]
    point = plan.space.fill(
        lambda _, domain: domain.nearest(
            first.get(domain.path, get_value(plan.config, domain.path))
        )
    )
    config = replace_values(plan.config, {**point, **outside})
    seconds = expected_seconds(config, plan.processed.manifest)
    return seconds.until_report(config, plan.origin.n_segments)


def _first_points_text(plan: Plan) -> str:
    n, is_first = len(plan.space.warm_start), base_is_first(plan.space, plan.config)
    base = "your config" if is_first else "the default config"
    warm_starts = [f"{n} warm start{'s' * (n != 1)}"] if n else []
    return " and ".join([base, *warm_starts] if is_first else [*warm_starts, base])


def _reports(plan: Plan) -> str:
    """Return what a trial reports and when, for how long, and where weak trials are stopped."""
    config, n_segments = plan.config, plan.origin.n_segments
    limit, period = config.evaluation.user_limit, config.evaluation.period
    users = "" if limit is None else f" of {limit:,} users"
    if n_segments == 1:
        often = "after each epoch" if period == 1 else f"after every {period} epochs"
    else:
        epochs = "each epoch" if period == 1 else f"one of {period} epochs"
        often = f"{n_segments} times in {epochs}"
    n_epochs, patience = config.training.max_epochs, config.training.patience
    text = f"{metric_title(config)}{users} {often}, of at most {n_epochs}"
    if isinstance(patience, int) and patience < n_epochs:
        text += f", and ends after {patience} without a better value"
    if config.study.pruner != "asha":
        return text
    deciding = [f"{step / n_segments:.3g}" for step in sorted(rungs(config, n_segments))]
    if not deciding:
        return text
    best = config.study.reduction_factor
    return f"{text}; of those that reach epoch {_listed(deciding)}, about one in {best} continues"


def _listed(words: Sequence[str]) -> str:
    """Return words as an English list with `or`."""
    return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def result_text(
    plan: Plan, ranked: Sequence[TrialSummary], answer: Mapping[str, Any], *, dir_flag: str
) -> Group:
    """Return the leaderboard and the commands that follow a search.

    `dir_flag`: the flag by which those commands find the folder, with a space before it.
    """
    table = trial_table(plan.config)
    for trial in ranked[:_SHOWN_TRIALS]:
        add_trial(table, trial, trial.state)
    lines = [", ".join(f"{count} {state}" for state, count in answer["counts"].items() if count)]
    if answer["best"]:
        lines += [f"Best config:    {answer['best']['config']}"]
        lines += [f"Final training: python -m recsys.train --best-of {plan.study.name}{dir_flag}"]
    if answer["mlflow"]:
        uri = shlex.quote(answer["mlflow"]["tracking_uri"])
        lines += [f"Compare trials: mlflow ui --backend-store-uri {uri}"]
    return Group(table, Text("\n".join(lines)))
