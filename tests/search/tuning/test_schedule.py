"""Schedules of a time budget, by hand."""

from dataclasses import dataclass, replace
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from ray.tune.search import Searcher

from recsys.config.schema import Config, replace_values
from recsys.search.costs.work import EpochSeconds
from recsys.search.record.study_record import StudyRecord
from recsys.search.space.space_file import parse_space
from recsys.search.tuning.pruning import make_pruner
from recsys.search.tuning.schedule import Schedule
from recsys.search.tuning.searcher import StudySearcher

SPACE = parse_space(
    {
        "parameters": {"model.embedding_dim": {"low": 8, "high": 64}},
        "warm_start": [{"model.embedding_dim": 32}],
    },
    "",
)


@dataclass
class Costs:
    """Predictor of an epoch that takes a second for each dimension of an embedding."""

    is_measured: bool = True

    def predict(self, config: Config) -> EpochSeconds:
        return EpochSeconds(0.75 * config.model.embedding_dim, 0.25 * config.model.embedding_dim)


class Clock:
    """Clock that shows `now`; every schedule begins at 1000."""

    now = 1000.0


def schedule_of(
    clock: Clock, costs: Costs | None = None, seconds: float = 600, **values: Any
) -> Schedule:
    """Return the schedule of two slots and the default rungs, after 1, 3 and 9 of 20 epochs."""
    default = {"n_slots": 2, "n_trials": None, "mean_share": 37 / 270, "n_segments": 1}
    return Schedule(
        seconds, lambda: 1000 + seconds - clock.now, costs or Costs(), **{**default, **values}
    )


def config_of(dim: int, **values: object) -> Config:
    return replace_values(Config(), {"model.embedding_dim": dim, **values})


@pytest.mark.parametrize(
    ("values", "equal_share", "longest"),
    [
        # 1,200 s for 2 * 25 trials, which train 37/270 of their epochs on average.
        ({}, 24, 24 * 270 / 37),
        # Without a pruner all train to the end.
        ({"mean_share": 1.0}, 24, 24),
        # 100 slots: a third of the time, so that a trial that starts later can train to its end.
        ({"n_slots": 100}, 1200, 200),
        # Three trials: two run first, then one.
        ({"n_trials": 3}, 200, 300),
        ({"n_trials": 1}, 600, 600),
        ({"n_trials": 1000}, 24, 24 * 270 / 37),
    ],
)
def test_shares_of_the_budget(values: dict[str, Any], equal_share: float, longest: float) -> None:
    schedule = schedule_of(Clock(), **values)
    assert schedule.equal_share == pytest.approx(equal_share)
    assert schedule.longest == pytest.approx(longest)


def test_a_trial_has_the_epochs_that_fit() -> None:
    clock = Clock()
    schedule = schedule_of(clock)  # a trial takes at most 175 s
    assert [schedule.plan(config_of(dim)) for dim in (8, 10, 50, 175, 300)] == [20, 17, 3, 1, 1]
    assert schedule.plan(config_of(10, **{"training.max_epochs": 4})) == 4
    clock.now += 545  # 55 s are left
    assert [schedule.plan(config_of(dim)) for dim in (10, 50, 60)] == [5, 1, 1]


def test_all_epochs_on_a_gpu_whose_speed_is_unknown() -> None:
    config = config_of(50, **{"resources.gpu": 1.0})
    assert schedule_of(Clock(), Costs(is_measured=False)).plan(config) == 20
    assert schedule_of(Clock()).plan(config) == 3


def test_a_trial_starts_if_it_is_worth_its_first_report() -> None:
    clock = Clock()
    schedule = schedule_of(clock)

    def admitted(config: Config) -> tuple[bool, bool]:
        return (
            schedule.admits(config, whatever_it_costs=False),
            schedule.admits(config, whatever_it_costs=True),
        )

    assert [admitted(config_of(dim)) for dim in (24, 25)] == [(True, True), (False, True)]
    clock.now += 580
    assert [admitted(config_of(dim)) for dim in (20, 21)] == [(True, True), (False, False)]
    clock.now += 21
    assert admitted(config_of(1)) == (False, False)
    # A trial reports four times in an epoch.
    segments = schedule_of(Clock(), n_segments=4)
    assert [segments.admits(config_of(dim), whatever_it_costs=False) for dim in (96, 97)] == [
        True,
        False,
    ]
    # Two epochs of training before one that is ranked, a quarter of whose time is ranking.
    schedule = schedule_of(Clock())
    every = {"evaluation.every": 3}
    assert [admitted(config_of(dim, **every)) for dim in (9, 10)] == [(True, True), (False, True)]
    assert schedule.plan(config_of(20, **every)) == 10
    unmeasured = schedule_of(Clock(), Costs(is_measured=False))
    assert unmeasured.admits(config_of(10_000), whatever_it_costs=False)


class Search:
    """A searcher on a study in memory, with 600 s for two slots."""

    def __init__(self) -> None:
        config = replace_values(Config(), {"study.time_budget": 600.0})
        self.study = optuna.create_study(
            direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0)
        )
        self.record = StudyRecord(self.study, config, SPACE)
        self.clock = Clock()
        self.searcher = StudySearcher(
            self.record,
            make_pruner(self.record, config),
            None,
            lambda: 2,
            schedule_of(self.clock),
        )

    def suggest(self) -> Any:
        return self.searcher.suggest("tune")


def dims_of(search: Search, state: TrialState) -> list[int]:
    return [
        trial.params["model.embedding_dim"] for trial in search.study.trials if trial.state == state
    ]


def test_proposals_that_are_too_dear_are_not_started() -> None:
    search = Search()
    search.record.enqueue_first_points()
    # The warm start and the base config were chosen by someone, and are cheap enough at the end.
    first, second = search.suggest(), search.suggest()
    assert dims_of(search, TrialState.RUNNING) == [32, 16]
    config = Config.model_validate_json(first["config"])
    assert (config.training.max_epochs, first["pruning_steps"]) == (5, [1, 3])
    assert Config.model_validate_json(second["config"]).training.max_epochs == 10
    for number in (0, 1):
        search.record.finish(number, "pruned")
    for _ in range(10):
        started = search.suggest()
        assert Config.model_validate_json(started["config"]).model.embedding_dim <= 24
        search.record.finish(started["number"], "pruned")
    assert min(dims_of(search, TrialState.FAIL)) > 24
    assert search.record.n_finished == 12


def test_nothing_starts_that_cannot_report_before_the_end() -> None:
    search = Search()
    search.clock.now += 570
    started = [search.suggest(), search.suggest()]
    assert all(
        Config.model_validate_json(one["config"]).model.embedding_dim <= 30 for one in started
    )
    search.clock.now += 23  # 7 s are left, and the cheapest takes 8
    search.record.finish(started[0]["number"], "pruned")
    assert search.suggest() is None  # the other may have to be retried
    n_asked = len(search.study.trials)
    assert search.suggest() is None
    assert len(search.study.trials) == n_asked
    search.record.finish(started[1]["number"], "complete")
    assert search.suggest() == Searcher.FINISHED
    assert [summary.number for summary in search.record.summaries()] == [
        one["number"] for one in started
    ]


def test_a_trial_leaves_time_to_rank_all_users_at_its_end() -> None:
    class WithAll(Costs):
        def predict(self, config: Config) -> EpochSeconds:
            return replace(super().predict(config), rank_all=100.0)

    # 200 slots: at most 200 s a trial, of which 100 s are for training and ranking samples.
    assert schedule_of(Clock(), n_slots=200).plan(config_of(8)) == 20
    assert schedule_of(Clock(), WithAll(), n_slots=200).plan(config_of(8)) == 100 // 8
