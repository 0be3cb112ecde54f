"""Printed texts of the tune command: a plan, and a result.

With `--json` the command prints the same answers as JSON instead.
"""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group
from rich.text import Text

from recsys.config.files import dump_yaml
from recsys.search.plan import Plan
from recsys.search.record.summaries import TrialSummary
from recsys.search.tuning.progress import add_trial, show_params, trial_table

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
        "Dry run: nothing was trained.",
    ]
    return Text("\n".join(lines))


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
