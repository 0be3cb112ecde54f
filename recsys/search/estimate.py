"""Estimate of a search before it runs, for a dry run: what its trials cost, and what fits.

The cheapest and the dearest config of the space are measured (`ends`, `tuning.measurement`). Their
ratios to the expected times correct those of configs that are sampled as trials are.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

from recsys.config.schema import Config
from recsys.data.manifest import Manifest
from recsys.search.tuning.costs import expected_ratio, kind_of
from recsys.search.tuning.measurement import Measured
from recsys.search.tuning.pruning import rungs
from recsys.search.tuning.trial_texts import show_bytes, show_duration
from recsys.search.tuning.work import EpochSeconds, expected_seconds

_LEAST_TRIALS = 20
"""Trials that a search needs to be worth its time; with fewer, a sampler has learned nothing."""
_MOST_RANKING = 2.0
"""Ratio of the time of ranking to that of training above which a user is warned."""


class Prediction:
    """Predicted times of epochs, from the measured ones of some configs."""

    def __init__(self, measured: Sequence[tuple[Config, EpochSeconds]], sizes: Manifest) -> None:
        self._sizes = sizes
        self._trains, self._ranks = [], []
        for config, epoch in measured:
            expected, kind = expected_seconds(config, sizes), kind_of(config)
            self._trains.append((kind, math.log(epoch.train / expected.train)))
            self._ranks.append((kind, math.log(epoch.rank / expected.rank)))

    def predict(self, config: Config) -> EpochSeconds:
        """Return the predicted time of an epoch of a config."""
        expected, kind = expected_seconds(config, self._sizes), kind_of(config)
        return EpochSeconds(
            expected.train * expected_ratio(self._trains, kind),
            expected.rank * expected_ratio(self._ranks, kind),
        )


@dataclass(frozen=True)
class Fit:
    """What a search has time for.

    `n_trials`: the trials that fit into the time budget, or those that were asked for. `seconds`:
    the time that they take. `trial_seconds`: the mean time of a trial. All of it as pruned as the
    pruner means to.
    """

    n_trials: int
    seconds: float
    trial_seconds: float


def fit_trials(config: Config, trial_seconds: float, n_slots: int) -> Fit:
    """Return what a search has time for if a trial takes `trial_seconds` on average."""
    budget, limit = config.study.time_budget, config.study.trial_limit
    fitting = math.inf if budget is None else budget * n_slots / trial_seconds
    n_trials = int(min(fitting, math.inf if limit is None else limit))
    return Fit(n_trials, n_trials * trial_seconds / n_slots, trial_seconds)


def mean_epochs(config: Config, n_segments: int) -> float:
    """Return the epochs that a trial trains on average; under other pruners than ASHA, all."""
    if config.study.pruner != "asha":
        return config.training.max_epochs
    total, before, surviving = 0.0, 0.0, 1.0
    for step in (*sorted(rungs(config, n_segments)), config.training.max_epochs * n_segments):
        total += surviving * (step - before) / n_segments
        before, surviving = step, surviving / config.study.reduction_factor
    return total


def estimate(
    config: Config,
    sampled: Iterable[tuple[Config, EpochSeconds]],
    measured: Mapping[str, Measured],
    *,
    n_slots: int,
    n_segments: int,
    memory: float,
) -> dict[str, Any]:
    """Return the estimate of a search as a dry run answers it, with warnings.

    Args:
        config: the config of the search.
        sampled: configs as trials have them, with the times of an epoch.
        measured: what was measured at the `cheap` and the `dear` end of the space.
        n_slots: the number of trials that run at a time.
        n_segments: the segments of an epoch.
        memory: the bytes of memory of the cluster.
    """
    epochs = [
        (mean_epochs(trial, n_segments), epoch.train, epoch.rank / trial.evaluation.period)
        for trial, epoch in sampled
    ]
    trial_seconds = mean(n_epochs * (train + rank) for n_epochs, train, rank in epochs)
    rank_ratio = sum(rank for _, _, rank in epochs) / sum(train for _, train, _ in epochs)
    fitting = fit_trials(config, trial_seconds, n_slots)
    return {
        "trials": fitting.n_trials,
        "seconds": fitting.seconds,
        "seconds_per_trial": fitting.trial_seconds,
        "warnings": [
            *_budget_warnings(config, measured["dear"].epoch, fitting),
            *_ranking_warnings(rank_ratio),
            *_memory_warnings(measured["dear"].memory, n_slots, memory),
        ],
    }


def _budget_warnings(config: Config, dear: EpochSeconds, fitting: Fit) -> Iterator[str]:
    budget = config.study.time_budget
    if budget is None:
        return
    if (seconds := dear.train + dear.rank) > budget:
        yield (
            f"An epoch at the dear end takes {show_duration(seconds)}, longer than the time "
            f"budget, {show_duration(budget)}: such a trial never reports. Narrow the space, or "
            "raise study.time_budget."
        )
    if fitting.n_trials < min(_LEAST_TRIALS, config.study.trial_limit or _LEAST_TRIALS):
        yield (
            f"Only about {fitting.n_trials} trials fit into the time budget; a search needs some "
            f"{_LEAST_TRIALS} to learn from. Raise study.time_budget, lower training.max_epochs, "
            "or narrow the space."
        )


def _ranking_warnings(ratio: float) -> Iterator[str]:
    if ratio > _MOST_RANKING:
        yield (
            f"Ranking takes {ratio:.1f} times as long as training on average. Lower "
            "evaluation.max_users, or raise evaluation.every."
        )


def _memory_warnings(peak: int | None, n_slots: int, memory: float) -> Iterator[str]:
    if peak is not None and peak * n_slots > memory:
        yield (
            f"{n_slots} trials at the dear end take {show_bytes(peak * n_slots)} of memory, "
            f"and the cluster has {show_bytes(memory)}. Lower study.max_concurrent, or narrow the "
            "space."
        )
