"""Pruners: rules that decide from the record whether a running trial is pruned.

A pruner stores no report and ends no trial; the recorder does both. Pruners have no state beside
the values in the record, so that a resumed search decides as before.
"""

import math
from collections.abc import Mapping, Set
from typing import Protocol

import optuna

from recsys.config.components import PRUNERS, code_of
from recsys.config.schema import Config
from recsys.search.record.running_trial import EpochPlan
from recsys.search.record.study_record import StudyRecord
from recsys.training.segments import first_ranked_step


class Pruner(Protocol):
    """Rule that prunes weak trials."""

    @property
    def mean_share(self) -> float:
        """Share of its epochs that a trial trains on average if as many survive as are meant to."""

    def steps_of(self, number: int) -> Set[int]:
        """Return the steps at which the rule decides on a trial that `ask` has started.

        The trial saves its best weights before it reports one of them.
        """

    def prunes(self, number: int, step: int) -> bool:
        """Return whether to prune trial `number`, whose report of `step` is in the record."""


class Asha:
    """Asynchronous successive halving.

    Rung i is the first ranked step at or after grace_epochs * reduction_factor ** i epochs, or
    after the same share of its epochs for a trial that was planned with fewer than its config has.
    A trial is compared at the rung, wherever the others have it. Of the n trials that have reported
    a rung, the best n // reduction_factor survive it. Where n is below reduction_factor, the best
    one survives, and so does, without a time budget, each trial of the base config or a warm start:
    someone chose it, and it may learn slowly and be the best in the end.

    Source: Li et al. 2020, arXiv:1810.05934, sec. 3 (the variant that stops trials and does not
    pause them).
    """

    def __init__(self, record: StudyRecord, config: Config) -> None:
        self._record = record
        self._reduction_factor = config.study.reduction_factor
        self._rungs = rung_epochs(config, record.n_segments)
        self._period = config.evaluation.period
        self._spares_first_points = config.study.time_budget is None
        self.mean_share = mean_share(config, record.n_segments)

    def steps_of(self, number: int) -> Set[int]:
        """Return the steps of the trial's rungs."""
        plan = self._record.plans.get(number)
        return {self._step(epochs, plan) for epochs in self._rungs}

    def prunes(self, number: int, step: int) -> bool:
        """Return whether the trial is not among the best at a rung that it has at this step."""
        plan = self._record.plans.get(number)
        return any(
            self._is_weak(number, self._values_at(epochs))
            for epochs in self._rungs
            if self._step(epochs, plan) == step
        )

    def _step(self, epochs: float, plan: EpochPlan | None) -> int:
        """Return a trial's step for the rung at `epochs`, scaled to its plan if it has one.

        The last step of a trial is ranked too.
        """
        n_segments = self._record.n_segments
        steps = epochs * n_segments
        if plan is None:
            return first_ranked_step(math.ceil(steps), n_segments, self._period)
        step = math.ceil(steps * plan.epochs / plan.proposed)
        return min(first_ranked_step(step, n_segments, self._period), plan.epochs * n_segments)

    def _values_at(self, epochs: float) -> dict[int, float]:
        """Return the value of each trial at the rung, by trial number."""
        plans = self._record.plans
        reported = self._record.values_at(self._step(epochs, None))
        values = {number: value for number, value in reported.items() if number not in plans}
        for number, plan in plans.items():
            value = self._record.values_at(self._step(epochs, plan)).get(number)
            if value is not None:
                values[number] = value
        return values

    def _is_weak(self, number: int, values: Mapping[int, float]) -> bool:
        n_better = sum(value > values[number] for value in values.values())
        n_passing = len(values) // self._reduction_factor
        return n_better >= max(1, n_passing) and not (
            n_passing == 0 and self._spares_first_points and self._record.is_first_point(number)
        )


class OptunaPruner:
    """Pruner of Optuna's, called at the steps at which it can decide."""

    def __init__(
        self,
        record: StudyRecord,
        pruner: optuna.pruners.BasePruner,
        steps: Set[int],
        mean_share: float = 1.0,
    ) -> None:
        self._record = record
        self._pruner = pruner
        self._steps = steps
        self.mean_share = mean_share

    def steps_of(self, number: int) -> Set[int]:
        """Return the same steps for each trial."""
        return self._steps

    def prunes(self, number: int, step: int) -> bool:
        """Return the decision of Optuna's pruner."""
        return self._record.is_pruned_by(self._pruner, number)


def no_pruner(record: StudyRecord, _config: Config) -> Pruner:
    """Return a pruner that prunes no trial."""
    return OptunaPruner(record, optuna.pruners.NopPruner(), frozenset())


def median(record: StudyRecord, config: Config) -> Pruner:
    """Return Optuna's median pruner, which decides once in each ranked epoch."""
    first, period = first_step(config, record.n_segments), config.evaluation.period
    steps = range(first, config.training.max_epochs * record.n_segments, period * record.n_segments)
    return OptunaPruner(record, optuna.pruners.MedianPruner(n_warmup_steps=first), frozenset(steps))


def hyperband(record: StudyRecord, config: Config) -> Pruner:
    """Return Optuna's Hyperband pruner."""
    pruner = optuna.pruners.HyperbandPruner(
        min_resource=first_step(config, record.n_segments),
        max_resource=config.training.max_epochs * record.n_segments,
        reduction_factor=config.study.reduction_factor,
    )
    steps, share = rungs(config, record.n_segments), mean_share(config, record.n_segments)
    return OptunaPruner(record, pruner, steps, share)


def make_pruner(record: StudyRecord, config: Config) -> Pruner:
    """Return the pruner that `study.pruner` names."""
    pruner: Pruner = code_of(PRUNERS[config.study.pruner])(record, config)
    return pruner


def first_step(config: Config, n_segments: int) -> int:
    """Return the first step at which a trial may be pruned; an epoch has `n_segments` steps."""
    step = math.ceil(config.grace_epochs * n_segments)
    return first_ranked_step(step, n_segments, config.evaluation.period)


def rungs(config: Config, n_segments: int) -> Set[int]:
    """Return the steps at which successive halving decides; an epoch has `n_segments` steps."""
    steps = (math.ceil(epochs * n_segments) for epochs in rung_epochs(config, n_segments))
    return {first_ranked_step(step, n_segments, config.evaluation.period) for step in steps}


def rung_epochs(config: Config, n_segments: int) -> list[float]:
    """Return the epochs of the rungs of successive halving, before they are rounded to steps."""
    rungs, epochs = [], config.grace_epochs
    n_steps = config.training.max_epochs * n_segments
    while (step := math.ceil(epochs * n_segments)) < n_steps:
        if first_ranked_step(step, n_segments, config.evaluation.period) < n_steps:
            rungs.append(epochs)
        epochs *= config.study.reduction_factor
    return rungs


def mean_share(config: Config, n_segments: int) -> float:
    """Return the mean share of its epochs that a trial trains under successive halving.

    Of the trials at a rung, 1 / reduction_factor train to the next one.
    """
    total, before, surviving = 0.0, 0.0, 1.0
    for epochs in (*rung_epochs(config, n_segments), config.training.max_epochs):
        total += surviving * (epochs - before)
        before, surviving = epochs, surviving / config.study.reduction_factor
    return total / config.training.max_epochs
