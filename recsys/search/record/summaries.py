"""Summaries of trials, and how trials are ranked.

Progress, the leaderboard, MLflow and final training read the record through them.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from recsys.search.space.search_space import by_path

STATES = ("complete", "pruned", "failed", "diverged", "unfinished")
_CHOOSABLE = ("complete", "pruned", "unfinished")
OUTSIDE_VALUES = "beside"
"""Attribute of a trial with its values outside of the space. It runs with them; the sampler sees
the nearest values of the space."""
PLANNED_EPOCHS = "planned_epochs"
"""Attribute of a trial: its epochs, fewer than its config has, so that it fits the time budget."""
SKIPPED = "skipped"
"""Attribute of a proposal that was not started, since it would not have fitted the budget."""


@dataclass(frozen=True)
class OnAllUsers:
    """Validation value of a trial on all users, besides its values on a sample.

    `value`: the searched metric of the weights of `epoch`, which has the best value on the sample.
    """

    value: float
    standard_error: float | None
    epoch: int

    def metrics(self, metric_name: str) -> dict[str, float]:
        """Return both numbers under names such as `val_ndcg_at_10_all_users`."""
        error = self.standard_error
        named = {} if error is None else {f"{metric_name}_all_users_se": error}
        return {f"{metric_name}_all_users": self.value, **named}


@dataclass(frozen=True)
class TrialSummary:
    """One trial as the record has it.

    `value`: the best validation value, reached at `epoch` (1-based). `standard_error`: of `value`
    over users, None of a single user or from a version that did not compute it. `nodes`: node
    addresses by the first epoch (as text) that ran there; a trial that stayed on its node has one.
    `on_all_users`: of the same epoch, None if the trial has not trained to its end, or if every
    ranking is of all users.
    """

    number: int
    state: str
    epochs: int
    value: float | None
    standard_error: float | None
    epoch: int | None
    params: dict[str, Any]
    metrics: dict[str, float]
    run_id: str | None
    nodes: dict[str, str]
    on_all_users: OnAllUsers | None = None

    @property
    def choosable(self) -> bool:
        """Whether it may be chosen as the best: it has a value and neither failed nor diverged."""
        return self.state in _CHOOSABLE and self.value is not None

    @property
    def best_known(self) -> tuple[float | None, float | None]:
        """The value on all users if there is one, otherwise `value`, and its standard error."""
        found = self.on_all_users
        return (
            (self.value, self.standard_error)
            if found is None
            else (found.value, found.standard_error)
        )


def summarise(
    trial: FrozenTrial, n_segments: int, error_name: str, run_id: str | None
) -> TrialSummary:
    """Return the summary of a stored trial.

    `n_segments`: steps of an epoch. `error_name`: name of the metric with the standard error.
    """
    values = {
        step // n_segments: value
        for step, value in trial.intermediate_values.items()
        if step % n_segments == 0
    }
    epoch = max(values, key=lambda e: (values[e], -e)) if values else None
    metrics = dict(trial.user_attrs.get("metrics", {}))
    return TrialSummary(
        number=trial.number,
        state=state_of(trial),
        epochs=max(values, default=0),
        value=None if epoch is None else values[epoch],
        standard_error=metrics.get(error_name),
        epoch=epoch,
        params=params_of(trial),
        metrics=metrics,
        run_id=run_id,
        nodes=dict(trial.user_attrs.get("nodes", {})),
    )


def params_of(trial: FrozenTrial) -> dict[str, Any]:
    """Return the parameters that a trial was run with, by config path."""
    params = proposed_params_of(trial)
    if PLANNED_EPOCHS in trial.user_attrs:
        params["training.max_epochs"] = trial.user_attrs[PLANNED_EPOCHS]
    return params


def proposed_params_of(trial: FrozenTrial) -> dict[str, Any]:
    """Return the parameters of a trial before its epochs were planned, by config path."""
    outside: dict[str, Any] = trial.user_attrs.get(OUTSIDE_VALUES, {})
    return by_path(trial.params) | outside


def is_trial(stored: FrozenTrial) -> bool:
    """Return whether a stored trial was run: it is no queued point and no skipped proposal."""
    return stored.state != TrialState.WAITING and SKIPPED not in stored.user_attrs


def state_of(trial: FrozenTrial) -> str:
    """Return the state in which a stored trial ended, or `unfinished`."""
    if trial.user_attrs.get("diverged"):
        return "diverged"
    return {
        TrialState.COMPLETE: "complete",
        TrialState.PRUNED: "pruned",
        TrialState.FAIL: "failed",
        TrialState.RUNNING: "unfinished",
        TrialState.WAITING: "unfinished",
    }[trial.state]


def ranked(summaries: list[TrialSummary]) -> list[TrialSummary]:
    """Return the trials from the best to the worst, then those that may not be chosen.

    Trials with a value on all users come before those with one on a sample, whose best value is
    partly the luck of that sample. In a study of an earlier version some complete trials have none;
    there, all trials are compared on the sample. Of equal values the earlier trial comes first.
    """
    complete = [s for s in summaries if s.choosable and s.state == "complete"]
    compares_all = all(s.on_all_users is not None for s in complete)

    def order(s: TrialSummary) -> tuple[bool, bool, float, int]:
        value = s.best_known[0] if compares_all else s.value
        is_on_sample = compares_all and s.on_all_users is None
        return not s.choosable, is_on_sample, -(value or 0.0), s.number

    return sorted(summaries, key=order)


def best_trial(summaries: list[TrialSummary]) -> TrialSummary | None:
    """Return the first of the ranked trials, None if none may be chosen."""
    return next((s for s in ranked(summaries) if s.choosable), None)


def count_states(summaries: list[TrialSummary]) -> dict[str, int]:
    """Return the number of trials in each state."""
    counts = Counter(summary.state for summary in summaries)
    return {state: counts[state] for state in STATES}


def leaderboard_row(summary: TrialSummary) -> dict[str, Any]:
    """Return a trial as a row of the leaderboard."""
    return {
        "trial": str(summary.number),
        "state": summary.state,
        "value": summary.value,
        "epoch": summary.epoch,
        "epochs": summary.epochs,
        **summary.metrics,
        **summary.params,
        "mlflow_run_id": summary.run_id,
    }
