"""Estimate of a search before it runs, for a dry run: what its trials cost, and what fits.

The cheapest and the dearest config of the space are measured (`ends`, `tuning.measurement`). Their
ratios to the expected times correct those of configs that are sampled as trials are.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import mean, median
from typing import Any

from recsys.config.schema import Config
from recsys.data.manifest import Manifest
from recsys.search.costs.predict import LogRatios, Predictor, predict
from recsys.search.costs.work import EpochSeconds
from recsys.search.tuning.measurement import Measured
from recsys.search.tuning.schedule import Schedule
from recsys.search.tuning.trial_texts import show_bytes, show_duration

_LEAST_TRIALS = 20
"""Trials that a search needs to be worth its time; with fewer, a sampler has learned nothing."""
_MOST_LEFT_OUT = 0.25
"""A user is warned if more than this share of the drawn configs does not fit the budget."""
_MOST_RANKING = 2.0
"""A user is warned if ranking takes more than this many times as long as training."""


class Prediction:
    """Predicted times of epochs, from the measured ones of some configs."""

    is_measured = True

    def __init__(self, measured: Sequence[tuple[Config, EpochSeconds]], sizes: Manifest) -> None:
        self._sizes = sizes
        self._ratios = [LogRatios.of(config, epoch, sizes) for config, epoch in measured]

    def predict(self, config: Config) -> EpochSeconds:
        """Return the predicted time of an epoch of a config."""
        return predict(config, self._ratios, self._sizes)


@dataclass(frozen=True)
class Trials:
    """What the trials of a search take, if the pruner prunes as many as it means to.

    `seconds`: the mean time of a trial. `epochs`: the median of the epochs that trials may train.
    `rank_ratio`: the time of ranking divided by that of training. `left_out`: the share of the
    drawn configs whose first report takes too long for the time budget.
    """

    seconds: float
    epochs: int
    rank_ratio: float
    left_out: float


def expect_trials(
    config: Config,
    drawn: Sequence[Config],
    predictor: Predictor,
    *,
    n_slots: int,
    n_segments: int,
    mean_share: float,
) -> Trials | None:
    """Return what trials take whose configs are drawn as in a search, None if none would start.

    Args:
        config: the config of the search.
        drawn: configs of the space.
        predictor: predicts the time of an epoch.
        n_slots: the number of trials that run at a time.
        n_segments: the segments of an epoch.
        mean_share: the share of its epochs that a trial trains on average (`Pruner`).
    """
    budget = config.study.time_budget
    planned = [(trial, trial.training.max_epochs) for trial in drawn]
    if budget is not None:
        schedule = Schedule(
            budget,
            lambda: budget,
            predictor,
            n_slots=n_slots,
            n_trials=config.study.n_trials,
            mean_share=mean_share,
            n_segments=n_segments,
        )
        planned = [
            (trial, schedule.plan(trial))
            for trial in drawn
            if schedule.admits(trial, whatever_it_costs=False)
        ]
    if not planned:
        return None
    trains, ranks = [], []
    for trial, n_epochs in planned:
        of_epoch, n_trained = predictor.predict(trial), max(1 / n_segments, n_epochs * mean_share)
        trains.append(n_trained * of_epoch.train)
        # At most `mean_share` of the trials train to their end.
        rank_all = mean_share * of_epoch.rank_all
        ranks.append(n_trained * of_epoch.rank / trial.evaluation.period + rank_all)
    return Trials(
        mean(trains) + mean(ranks),
        int(median(n_epochs for _, n_epochs in planned)),
        sum(ranks) / sum(trains),
        1 - len(planned) / len(drawn),
    )


def estimate(
    config: Config, trials: Trials | None, dear: Measured, *, n_slots: int, memory: float
) -> dict[str, Any]:
    """Return the estimate of a search as a dry run answers it, with warnings.

    Args:
        config: the config of the search.
        trials: what its trials take, None if none would start.
        dear: what was measured at the dear end of the space.
        n_slots: the number of trials that run at a time.
        memory: the bytes of memory of the cluster.
    """
    budget, limit = config.study.time_budget, config.study.trial_limit
    n_trials = 0
    if trials is not None:
        fitting = math.inf if budget is None else budget * n_slots / trials.seconds
        n_trials = int(min(fitting, math.inf if limit is None else limit))
    return {
        "trials": n_trials,
        "seconds": trials.seconds * max(1, n_trials / n_slots) if trials and n_trials else 0.0,
        "seconds_per_trial": None if trials is None else trials.seconds,
        "epochs_per_trial": None if trials is None else trials.epochs,
        "left_out": 1.0 if trials is None else trials.left_out,
        "warnings": [
            *_budget_warnings(config, trials, dear.epoch, n_trials),
            *_ranking_warnings(0.0 if trials is None else trials.rank_ratio),
            *_memory_warnings(dear.memory, n_slots, memory),
        ],
    }


def _budget_warnings(
    config: Config, trials: Trials | None, dear: EpochSeconds, n_trials: int
) -> Iterator[str]:
    budget, limit = config.study.time_budget, config.study.trial_limit
    if budget is None:
        return
    if (seconds := dear.train + dear.rank) > budget:
        yield (
            f"An epoch at the dear end takes {show_duration(seconds)}, longer than the time "
            f"budget, {show_duration(budget)}. Narrow the space, or raise study.time_budget."
        )
    left_out = 1.0 if trials is None else trials.left_out
    if left_out > _MOST_LEFT_OUT:
        yield (
            f"Of the space, {left_out:.0%} takes longer until a first report than a trial's share "
            "of the time budget, and is tried last. Narrow the space, or raise study.time_budget."
        )
    if n_trials < min(_LEAST_TRIALS, limit or _LEAST_TRIALS):
        yield (
            f"The time budget is enough for about {n_trials} trials; a search needs some "
            f"{_LEAST_TRIALS} to learn from. Raise study.time_budget, or narrow the space."
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
