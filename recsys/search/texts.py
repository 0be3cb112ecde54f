"""What the tune command prints of a plan and of a result, for people.

Stands behind `session`, beside the JSON that programs read.
"""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group
from rich.text import Text

from recsys.config.files import dump_yaml
from recsys.search.record.summaries import TrialSummary
from recsys.search.session import Plan
from recsys.search.tuning.progress import add_trial, show_params, trial_table

_SHOWN_TRIALS = 10


def plan_text(plan: Mapping[str, Any]) -> Text:
    """What would run, by the answer of `describe_plan`."""
    data, resources = plan["data"], plan["resources"]
    trial, cluster = resources["trial"], resources["cluster"]
    lines = [
        dump_yaml(plan["config"]),
        "Sample trials:",
        *(f"  {show_params(params)}" for params in plan["sample_trials"]),
        f"Data: {data['users']:,} users, {data['items']:,} items, {data['interactions']:,} interactions",
        f"Resources: {resources['concurrency']} trials at a time, each with {trial['cpu']:g} CPU and {trial['gpu']:g} GPU, "
        f"of {cluster['CPU']:g} CPU and {cluster['GPU']:g} GPU",
        "Dry run: nothing was trained.",
    ]
    return Text("\n".join(lines))


def result_text(
    plan: Plan, ranked: Sequence[TrialSummary], answer: Mapping[str, Any], *, dir_flag: str
) -> Group:
    """The leaderboard, and the commands that follow a search; `dir_flag` is what they need to find its folder."""
    table = trial_table(plan.config)
    for trial in ranked[:_SHOWN_TRIALS]:
        add_trial(table, trial, trial.state)
    lines = [", ".join(f"{count} {state}" for state, count in answer["counts"].items() if count)]
    if answer["best"]:
        lines += [f"Best config:    {answer['best']['config']}"]
        lines += [f"Final training: python -m recsys.train --best-of {plan.name}{dir_flag}"]
    if answer["mlflow"]:
        lines += [
            f"Compare trials: mlflow ui --backend-store-uri {shlex.quote(answer['mlflow']['tracking_uri'])}"
        ]
    return Group(table, Text("\n".join(lines)))
