"""Schedule of a search under a time budget: the epochs of a trial, and which trials still start.

The searcher asks it about each new trial. Without a time budget there is no schedule: a trial may
train all epochs of its config, and every trial starts.

The budget is the time of all slots. A trial has an equal share of it, so that half of the budget is
enough for `MIN_TRIALS` trials. The other half is for errors of the predicted times, and for trials
that pass a rung because they were early. Most trials are pruned before they have used their share;
one that trains to its end may therefore take more.
"""

import math
from collections.abc import Callable

from recsys.config.schema import Config
from recsys.search.costs.predict import Predictor

MIN_TRIALS = 25
"""Trials that half of the budget is enough for."""
GENERATIONS = 3
"""Trials that fit into a slot one after another, even if each trains to its end."""


class Schedule:
    """Schedule of the trials of one run of a study.

    `equal_share`: the seconds of a slot that a trial takes on average. `longest`: the seconds that
    a trial takes at most, by the epochs that it is planned with.
    """

    def __init__(
        self,
        seconds: float,
        seconds_left: Callable[[], float],
        costs: Predictor,
        *,
        n_slots: int,
        n_trials: int | None,
        mean_share: float,
        n_segments: int,
    ) -> None:
        """Divide the time.

        Args:
            seconds: the time budget.
            seconds_left: returns the time until the last trial has to end.
            costs: predicts the time of an epoch.
            n_slots: the number of trials that run at a time.
            n_trials: the number of trials, None for as many as fit.
            mean_share: the share of its epochs that a trial trains on average (`Pruner`).
            n_segments: the segments of an epoch.
        """
        self._costs = costs
        self._n_segments = n_segments
        self._seconds_left = seconds_left
        n_fitting = MIN_TRIALS if n_trials is None else min(MIN_TRIALS, n_trials)
        self.equal_share = seconds * n_slots / (2 * n_fitting)
        n_rounds = GENERATIONS if n_trials is None else math.ceil(n_trials / n_slots)
        self.longest = min(self.equal_share / mean_share, seconds / min(GENERATIONS, n_rounds))

    def plan(self, config: Config) -> int:
        """Return the epochs of a trial that starts now: as many as fit, and at least one.

        All of them on a GPU, as long as only the speed of a core is known.
        """
        if config.resources.gpu and not self._costs.is_measured:
            return config.training.max_epochs
        seconds = self._costs.predict(config)
        left = min(self.longest, self._seconds_left()) - seconds.rank_all
        n_fitting = int(left / seconds.mean(config))
        return min(config.training.max_epochs, max(1, n_fitting))

    def admits(self, config: Config, *, whatever_it_costs: bool) -> bool:
        """Return whether a trial may start now.

        It may if it reports before the end, and if its first report takes no more than an equal
        share of the budget, or `whatever_it_costs`. Until a trial has reported, every trial may
        start: this machine may be much faster than expected.
        """
        if not self._costs.is_measured:
            return True
        limit = self._seconds_left()
        if not whatever_it_costs:
            limit = min(limit, self.equal_share)
        return self._costs.predict(config).until_report(config, self._n_segments) <= limit
