"""Arithmetic of `benchmarks.search_quality`: incumbents, regret, intervals and targets."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from benchmarks.search_quality import regret
from benchmarks.search_quality.outcome import (
    Outcome,
    Record,
    Report,
    Search,
    Searched,
    held,
    incumbents,
    outcome_of,
)
from benchmarks.search_quality.regret import (
    Scale,
    common_pairs,
    mean_interval,
    mean_regret,
    ratio_interval,
    regrets_of,
    scales_of,
)
from benchmarks.search_quality.searches import searches
from benchmarks.search_quality.targets import beats_starts, halves_regret, starts_soon

# Trial 0 is a start. Trial 2 looks better than it is: by a sample it has .32, by all users .24.
REPORTS = [
    Report(20.0, 0, 1, 0.10),
    Report(30.0, 1, 1, 0.05),
    Report(40.0, 0, 2, 0.30),
    Report(50.0, 1, 2, 0.20),
    Report(60.0, 2, 1, 0.32),
    Report(70.0, 0, 3, 0.29),
]
ON_ALL = {(0, 1): 0.11, (0, 2): 0.28, (2, 1): 0.24}
RECORD = Record(
    ranks_all=False,
    reports=REPORTS,
    on_all_users=[],
    starts=[0],
    first_complete=70.0,
    best=(0, 2),
    n_trials=3,
    trials={0: (5, "{}"), 2: (7, "{}")},
)


def searched(data: str = "a", system: str = "whole", minutes: float = 2, seed: int = 0) -> Searched:
    return Searched(Search(data, system, minutes, seed), "abc", 130.0, RECORD)


def outcome(
    value: float | None,
    best_start: float | None = None,
    *,
    data: str = "a",
    minutes: float = 15,
    seed: int = 0,
    seconds: float = 100.0,
) -> Outcome:
    """Return a search that finds `value` after some seconds and nothing else."""
    curve = [] if value is None else [(seconds, value)]
    return Outcome(searched(data, minutes=minutes, seed=seed), curve, best_start)


def test_all_systems_are_compared_on_all_sets_before_the_next_budget_and_seed() -> None:
    found = list(searches(["a", "b"], ["whole", "earlier main"], [5, 2], 2))
    assert found[:5] == [
        Search("a", "whole", 2, 0),
        Search("a", "earlier main", 2, 0),
        Search("b", "whole", 2, 0),
        Search("b", "earlier main", 2, 0),
        Search("a", "whole", 5, 0),
    ]
    assert [search.seed for search in found] == [0] * 8 + [1] * 8
    assert found[1].name == "a-earlier-main-2m-0"
    assert len({search.name for search in found}) == 16


def test_incumbents_are_better_than_all_before() -> None:
    assert [(report.trial, report.epoch) for report in incumbents(REPORTS)] == [
        (0, 1),
        (0, 2),
        (2, 1),
    ]


def test_once_a_trial_is_ranked_on_all_users_only_such_trials_are_held_for_the_best() -> None:
    on_all = [Report(50.0, 1, 1, 0.18), Report(70.0, 0, 2, 0.28), Report(80.0, 3, 1, 0.2)]
    record = replace(RECORD, on_all_users=on_all)
    assert [(r.seconds, r.trial, r.epoch) for r in held(record)] == [
        (20.0, 0, 1),
        (40.0, 0, 2),
        (50.0, 1, 1),
        (70.0, 0, 2),
    ]
    assert record.to_score() == {(0, 1), (0, 2), (1, 1)}
    again = Searched.from_json(json.loads(json.dumps(replace(searched(), record=record).as_json())))
    assert again.record == record


def test_a_sampled_search_is_scored_where_it_changed_its_mind_at_its_answer_and_its_start() -> None:
    assert RECORD.to_score() == {(0, 1), (0, 2), (2, 1)}
    assert replace(RECORD, best=(1, 2)).to_score() == {(0, 1), (0, 2), (2, 1), (1, 2)}
    assert replace(RECORD, starts=[1]).to_score() == {(0, 1), (0, 2), (2, 1), (1, 2)}


def test_a_curve_has_the_values_on_all_users_and_ends_with_the_answer() -> None:
    found = outcome_of(searched(), ON_ALL)
    assert found.curve == [(20.0, 0.11), (40.0, 0.28), (60.0, 0.24), (130.0, 0.28)]
    assert found.value == 0.28
    assert found.best_start == 0.28
    assert [found.value_at(seconds) for seconds in (19.9, 20.0, 59.0, 60.0, 500.0)] == [
        None,
        0.11,
        0.28,
        0.24,
        0.28,
    ]


def test_a_search_without_reports_has_no_value() -> None:
    nothing = replace(RECORD, reports=[], starts=[], best=None)
    found = outcome_of(replace(searched(), record=nothing), {})
    assert (found.curve, found.value, found.value_at(60.0), found.best_start) == ([], *[None] * 3)


def test_a_search_is_read_back_from_json_as_it_was() -> None:
    assert Searched.from_json(json.loads(json.dumps(searched().as_json()))) == searched()
    nothing = replace(searched(), record=replace(RECORD, best=None, first_complete=None))
    assert Searched.from_json(json.loads(json.dumps(nothing.as_json()))) == nothing


@pytest.mark.parametrize(
    ("value", "expected"), [(0.5, 0.0), (0.4, 0.25), (0.1, 1.0), (0.05, 1.0), (None, 1.0)]
)
def test_regret_is_0_at_the_best_and_1_at_most_popular_and_below(
    value: float | None, expected: float
) -> None:
    assert Scale(best=0.5, popular=0.1).regret(value) == pytest.approx(expected)


def test_regret_where_nothing_beats_most_popular_is_1() -> None:
    assert Scale(best=0.1, popular=0.1).regret(0.1) == 1.0


def test_the_best_of_a_data_set_is_that_of_all_searches_at_any_time() -> None:
    found = [outcome_of(searched(), {**ON_ALL, (0, 1): 0.29}), outcome(0.1), outcome(None)]
    assert scales_of(found, {"a": 0.02, "b": 0.3}) == {
        "a": Scale(0.29, 0.02),
        "b": Scale(0.3, 0.3),
    }


def test_regrets_of_answers_and_after_a_time() -> None:
    found = [outcome(0.4), outcome(0.3, seed=1, seconds=300.0), outcome(0.1, data="b")]
    scales = {"a": Scale(0.5, 0.1), "b": Scale(0.1, 0.0)}
    at_the_end = regrets_of(found, scales)
    assert at_the_end == {"a": {0: pytest.approx(0.25), 1: pytest.approx(0.5)}, "b": {0: 0.0}}
    assert regrets_of(found, scales, 200.0)["a"] == {0: pytest.approx(0.25), 1: 1.0}


def test_mean_regret_weighs_data_sets_equally() -> None:
    # (.1 + .2 + .3) / 3 = .2 and .6, so .4; over the four searches it would be .3.
    assert mean_regret({"a": {0: 0.1, 1: 0.2, 2: 0.3}, "b": {0: 0.6}}) == pytest.approx(0.4)


def test_pairs_that_only_one_system_has_are_left_out_of_a_ratio() -> None:
    first = {"a": {0: 0.2, 1: 0.9}, "b": {0: 0.4}, "c": {0: 0.9}}
    second = {"a": {0: 0.1, 2: 0.9}, "b": {0: 0.2}}
    assert common_pairs(first, second) == (
        {"a": {0: 0.2}, "b": {0: 0.4}},
        {"a": {0: 0.1}, "b": {0: 0.2}},
    )
    ratio = ratio_interval(first, second)
    # Both pairs have the ratio 2, so each resample has it.
    assert [ratio.estimate, ratio.low, ratio.high] == pytest.approx([2.0, 2.0, 2.0])


def test_an_interval_has_the_ends_of_a_slow_bootstrap() -> None:
    # Two data sets of two seeds. A resample draws a set twice: each time its mean is of two draws
    # of its seeds. So the mean is an average of two of {0, .2, .4} (a) and {.6, .7, .8} (b), where
    # the middle ones have twice the weight. P(both a) = 1/4, and then P(both means are 0) = 1/16:
    # P(mean = 0) = 1/64 = .0156 < .025, and P(mean <= .1) = 1/64 + 2 (1/4 * 1/2) / 4 = .078.
    found = mean_interval({"a": {0: 0.0, 1: 0.4}, "b": {0: 0.6, 1: 0.8}})
    assert found.estimate == pytest.approx(0.45)
    # By the same count from above: P(.8) = 1/64, P(>= .75) = .078.
    assert [found.low, found.high] == pytest.approx([0.1, 0.75])


def test_a_ratio_is_of_the_same_draws_of_both_systems() -> None:
    # Unpaired draws would give ratios from .1 to 1,000 here.
    hard = {"a": {0: 0.01, 1: 0.02}, "b": {0: 0.5, 1: 1.0}}
    half = {
        name: {seed: value / 2 for seed, value in seeds.items()} for name, seeds in hard.items()
    }
    found = ratio_interval(half, hard)
    assert [found.low, found.estimate, found.high] == pytest.approx([0.5, 0.5, 0.5])


def test_a_ratio_of_two_regrets_of_0_is_1_and_to_0_is_infinite() -> None:
    nothing, some = {"a": {0: 0.0}}, {"a": {0: 0.1}}
    assert ratio_interval(nothing, nothing) == regret.Interval(1.0, 1.0, 1.0)
    assert ratio_interval(some, nothing) == regret.Interval(math.inf, math.inf, math.inf)


def test_starts_are_beaten_on_a_set_by_its_median_seed() -> None:
    better = [outcome(0.3, 0.2), outcome(0.1, 0.2, seed=1), outcome(0.21, 0.2, seed=2)]
    worse = [outcome(0.3, 0.2, data="b"), outcome(0.2, 0.2, data="b", seed=1)]
    worse.append(outcome(0.2, 0.2, data="b", seed=2))
    found = beats_starts([*better, *worse])
    assert (found.value.median, found.bound, found.holds) == (1.0, 2, False)


def test_starts_must_be_beaten_on_seven_of_eight_sets_and_on_eight_of_nine() -> None:
    sets = [outcome(0.3, 0.2, data=name) for name in "abcdefg"]
    assert beats_starts([*sets, outcome(0.1, 0.2, data="h")]).holds
    assert beats_starts([*sets, outcome(0.3, 0.2, data="h"), outcome(0.1, 0.2, data="i")]).holds
    assert not beats_starts([*sets, *[outcome(0.1, 0.2, data=name) for name in "hi"]]).holds


def test_starts_must_be_beaten_within_ten_minutes_by_the_shortest_budget_of_ten_or_more() -> None:
    late = outcome(0.3, 0.2, seconds=601.0)
    assert not beats_starts([late]).holds
    assert not beats_starts([late, outcome(0.3, 0.2, minutes=60)]).holds
    assert beats_starts([outcome(0.3, 0.2), outcome(0.1, 0.2, minutes=5)]).holds
    assert beats_starts([outcome(0.3, 0.2, minutes=5), outcome(0.1, 0.2, minutes=2)]).holds


def test_a_search_without_a_value_beats_no_start() -> None:
    assert not beats_starts([outcome(None, None)]).holds


@pytest.mark.parametrize(
    ("whole", "expected"),
    [
        ([0.1, 0.2, 0.3], [True, True]),  # a third of it everywhere
        ([0.2, 0.4, 0.6], [False, True]),  # two thirds everywhere
        ([0.6, 0.0, 0.0], [True, False]),  # a third, but only because of two of three sets
    ],
)
def test_half_the_regret_needs_an_interval_below_1(
    whole: Sequence[float], expected: Sequence[bool]
) -> None:
    def regrets(values: Sequence[float]) -> Mapping[str, Mapping[int, float]]:
        return {name: {0: value} for name, value in zip("abc", values, strict=True)}

    earlier = {5.0: regrets([0.3, 0.6, 0.9])}
    found = list(halves_regret({5.0: regrets(whole)}, earlier))
    assert [target.holds for target in found] == expected
    assert list(halves_regret({2.0: regrets(whole)}, {2.0: regrets(whole)})) == []


def test_the_slowest_start_counts() -> None:
    soon = outcome_of(searched(), ON_ALL)
    first, complete = starts_soon([soon])
    assert (first.value.median, first.holds) == (20.0, True)
    assert (complete.value.median, complete.holds) == (70.0, True)
    late = replace(RECORD, first_complete=None)
    first, complete = starts_soon([soon, replace(soon, searched=replace(searched(), record=late))])
    assert (first.holds, complete.holds) == (True, False)
