"""Targets of the whole search, which its results hold or miss."""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence

from benchmarks.measure import Spread, Target, spread
from benchmarks.search_quality.outcome import Outcome
from benchmarks.search_quality.regret import Regrets, ratio_interval

BEATEN_WITHIN = 600.0
"""Seconds within which the best warm start must be beaten."""
BEATEN_SHARE = 7 / 8
"""Share of the data sets on which it must be."""
HALVED_AT = (5, 15)
"""Budgets, in minutes, with which the mean regret must be half that of the earlier main."""
_BELOW_ONE = math.nextafter(1.0, 0.0)


def beats_starts(outcomes: Sequence[Outcome]) -> Target:
    """Compare the whole search with its own best start after ten minutes, by the median seed.

    A data set counts by the searches with the shortest budget of at least ten minutes, or with the
    longest one if all are shorter.
    """
    names = sorted({outcome.search.data for outcome in outcomes})
    gains = {
        name: statistics.median(
            _gain(outcome)
            for outcome in _with_budget([o for o in outcomes if o.search.data == name])
        )
        for name in names
    }
    n_beaten = sum(gain > 0 for gain in gains.values())
    bound = math.ceil(BEATEN_SHARE * len(names))
    return Target(
        f"of {len(names)} sets, those whose best start is beaten in 10 min",
        spread([float(n_beaten)]),
        bound,
    )


def _with_budget(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Return the outcomes with the budget that `beats_starts` describes."""
    budgets = {outcome.search.minutes for outcome in outcomes}
    long = [minutes for minutes in budgets if minutes * 60 >= BEATEN_WITHIN]
    chosen = min(long) if long else max(budgets)
    return [outcome for outcome in outcomes if outcome.search.minutes == chosen]


def _gain(outcome: Outcome) -> float:
    """Return how much better a search is than its best start; -inf without a value of either."""
    value = outcome.value_at(BEATEN_WITHIN)
    if value is None or outcome.best_start is None:
        return float("-inf")
    return value - outcome.best_start


def halves_regret(
    whole: Mapping[float, Regrets], earlier: Mapping[float, Regrets]
) -> Iterator[Target]:
    """Compare the mean regrets of two systems, given by budget in minutes."""
    for minutes in HALVED_AT:
        if minutes in whole and minutes in earlier:
            ratio = ratio_interval(whole[minutes], earlier[minutes])
            name = f"mean regret over the earlier main's with {minutes} min"
            found = Spread(ratio.estimate, ratio.low, ratio.high)
            yield Target(name, found, 0.5, at_least=False)
            upper = f"upper end of its interval with {minutes} min"
            yield Target(upper, spread([ratio.high]), _BELOW_ONE, at_least=False)


def starts_soon(outcomes: Sequence[Outcome]) -> Iterator[Target]:
    """Compare the slowest first report and first complete trial with their limits."""
    records = [outcome.searched.record for outcome in outcomes]
    reported = [r.reports[0].seconds if r.reports else math.inf for r in records]
    complete = [math.inf if r.first_complete is None else r.first_complete for r in records]
    for name, found, bound in (("report", reported, 60.0), ("complete trial", complete, 120.0)):
        yield Target(f"slowest first {name}, seconds", spread([max(found)]), bound, at_least=False)
