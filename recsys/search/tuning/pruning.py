"""Pruners: rules that decide from the record whether a running trial is stopped.

A pruner writes no report and ends no trial; the recorder does both. ASHA's only state is the values in the record, so that a
resumed search decides by the same standard.
"""

import math
from collections.abc import Set
from typing import Protocol

import optuna

from recsys.config.components import PRUNERS, code_of
from recsys.config.schema import Config
from recsys.search.record.record import StudyRecord


class Pruner(Protocol):
    """Rule that stops weak trials."""

    @property
    def steps(self) -> Set[int]:
        """The steps at which the rule decides; a trial saves its best weights before it reports one of them."""

    def prunes(self, number: int, step: int) -> bool:
        """Return whether trial `number`, whose report of `step` is in the record, is stopped."""


class Asha:
    """Asynchronous successive halving by a trial's own epochs.

    At each rung, the first report from grace_period * reduction_factor ** i epochs on, a trial survives only if it is among the
    best 1 / reduction_factor of those that have reached the rung, or the best of fewer than reduction_factor. Among so few, the
    trials that the search started with survive in any case: they were chosen, and may learn slowly and come out best.

    Source: Li et al. 2020, arXiv:1810.05934, sec. 3 (in the form that stops trials instead of pausing them).
    """

    def __init__(self, record: StudyRecord, config: Config) -> None:
        self._record = record
        self._reduction_factor = config.study.reduction_factor
        self.steps = rungs(config, record.parts)

    def prunes(self, number: int, step: int) -> bool:
        """Return whether the trial is not among the best at this rung."""
        values = self._record.values_at(step)
        n_better = sum(value > values[number] for value in values.values())
        n_passing = len(values) // self._reduction_factor
        return n_better >= max(1, n_passing) and not (
            n_passing == 0 and self._record.is_start(number)
        )


class OptunaPruner:
    """A pruner of Optuna's, asked at the steps where it can decide."""

    def __init__(
        self, record: StudyRecord, pruner: optuna.pruners.BasePruner, steps: Set[int]
    ) -> None:
        self._record = record
        self._pruner = pruner
        self.steps = steps

    def prunes(self, number: int, step: int) -> bool:
        """Return what Optuna's pruner says of the trial."""
        return self._record.is_pruned_by(self._pruner, number)


class NoPruner:
    """Rule that stops no trial."""

    def __init__(self, record: StudyRecord, config: Config) -> None:
        self.steps: Set[int] = frozenset()

    def prunes(self, number: int, step: int) -> bool:
        """Return False."""
        return False


def median(record: StudyRecord, config: Config) -> Pruner:
    """Return Optuna's median pruner, which decides after each epoch."""
    first = first_step(config, record.parts)
    steps = range(first, config.training.max_epochs * record.parts, record.parts)
    return OptunaPruner(record, optuna.pruners.MedianPruner(n_warmup_steps=first), frozenset(steps))


def hyperband(record: StudyRecord, config: Config) -> Pruner:
    """Return Optuna's Hyperband pruner."""
    pruner = optuna.pruners.HyperbandPruner(
        min_resource=first_step(config, record.parts),
        max_resource=config.training.max_epochs * record.parts,
        reduction_factor=config.study.reduction_factor,
    )
    return OptunaPruner(record, pruner, rungs(config, record.parts))


def make_pruner(record: StudyRecord, config: Config) -> Pruner:
    """Return the pruner that `study.pruner` names."""
    pruner: Pruner = code_of(PRUNERS[config.study.pruner])(record, config)
    return pruner


def first_step(config: Config, parts: int) -> int:
    """Return the first step, of which an epoch has `parts`, at which a trial may be stopped."""
    return math.ceil(config.study.grace_period * parts)


def rungs(config: Config, parts: int) -> Set[int]:
    """Return the steps, of which an epoch has `parts`, at which successive halving decides."""
    steps, epochs = set(), config.study.grace_period
    while math.ceil(epochs * parts) < config.training.max_epochs * parts:
        steps.add(math.ceil(epochs * parts))
        epochs *= config.study.reduction_factor
    return steps
