"""Pruners: rules that decide from the record whether a running trial is pruned.

A pruner stores no report and ends no trial; the recorder does both. Pruners have no state beside
the values in the record, so that a resumed search decides as before.
"""

import math
from collections.abc import Set
from typing import Protocol

import optuna

from recsys.config.components import PRUNERS, code_of
from recsys.config.schema import Config
from recsys.search.record.study_record import StudyRecord
from recsys.training.segments import first_ranked_step


class Pruner(Protocol):
    """Rule that prunes weak trials."""

    @property
    def steps(self) -> Set[int]:
        """Steps at which the rule decides; a trial saves its best weights before it reports one."""

    def prunes(self, number: int, step: int) -> bool:
        """Return whether to prune trial `number`, whose report of `step` is in the record."""


class Asha:
    """Asynchronous successive halving.

    Rung i is the first ranked step at or after grace_period * reduction_factor ** i epochs. Of the
    n trials that have reported a rung, the best n // reduction_factor survive it. Where n is below
    reduction_factor, the best one survives, and so does each trial of the base config or a warm
    start: someone chose it, and it may learn slowly and be the best in the end.

    Source: Li et al. 2020, arXiv:1810.05934, sec. 3 (the variant that stops trials and does not
    pause them).
    """

    def __init__(self, record: StudyRecord, config: Config) -> None:
        self._record = record
        self._reduction_factor = config.study.reduction_factor
        self.steps = rungs(config, record.n_segments)

    def prunes(self, number: int, step: int) -> bool:
        """Return whether the trial is not among the best at this rung."""
        values = self._record.values_at(step)
        n_better = sum(value > values[number] for value in values.values())
        n_passing = len(values) // self._reduction_factor
        return n_better >= max(1, n_passing) and not (
            n_passing == 0 and self._record.is_first_point(number)
        )


class OptunaPruner:
    """Pruner of Optuna's, called at the steps at which it can decide."""

    def __init__(
        self, record: StudyRecord, pruner: optuna.pruners.BasePruner, steps: Set[int]
    ) -> None:
        self._record = record
        self._pruner = pruner
        self.steps = steps

    def prunes(self, number: int, step: int) -> bool:
        """Return the decision of Optuna's pruner."""
        return self._record.is_pruned_by(self._pruner, number)


class NoPruner:
    """Rule that prunes no trial."""

    def __init__(self, record: StudyRecord, config: Config) -> None:
        self.steps: Set[int] = frozenset()

    def prunes(self, number: int, step: int) -> bool:
        """Return False."""
        return False


def median(record: StudyRecord, config: Config) -> Pruner:
    """Return Optuna's median pruner, which decides after each ranked epoch."""
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
    return OptunaPruner(record, pruner, rungs(config, record.n_segments))


def make_pruner(record: StudyRecord, config: Config) -> Pruner:
    """Return the pruner that `study.pruner` names."""
    pruner: Pruner = code_of(PRUNERS[config.study.pruner])(record, config)
    return pruner


def first_step(config: Config, n_segments: int) -> int:
    """Return the first step at which a trial may be pruned; an epoch has `n_segments` steps."""
    step = math.ceil(config.study.grace_period * n_segments)
    return first_ranked_step(step, n_segments, config.evaluation.period)


def rungs(config: Config, n_segments: int) -> Set[int]:
    """Return the steps at which successive halving decides; an epoch has `n_segments` steps."""
    steps, epochs = set(), config.study.grace_period
    n_steps = config.training.max_epochs * n_segments
    while math.ceil(epochs * n_segments) < n_steps:
        step = math.ceil(epochs * n_segments)
        steps.add(first_ranked_step(step, n_segments, config.evaluation.period))
        epochs *= config.study.reduction_factor
    return {step for step in steps if step < n_steps}
