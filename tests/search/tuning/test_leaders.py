"""Leading trials ranked on all users, in small searches and on a record in memory."""

import dataclasses
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from recsys.config.schema import replace_values
from recsys.data.interactions import Interactions
from recsys.data.preprocessing.pipeline import prepare
from recsys.data.processed import load
from recsys.search.record.running_trial import trial_seed
from recsys.search.record.summaries import (
    OnAllUsers,
    TrialSummary,
    best_trial,
    ranked_by_value,
)
from recsys.search.tuning import leaders
from recsys.search.tuning.leaders import Leaders, find_leaders
from recsys.training.fit import fit
from tests.search.record.test_record import summary
from tests.search.tuning.test_searcher import Search
from tests.small_search import Searched, search
from tests.training.small_data import two_tastes

SLOTS: Any = SimpleNamespace(count=lambda: 2)


@pytest.fixture(scope="module")
def searched(ray_here: None, ratings: Path, tmp_path_factory: pytest.TempPathFactory) -> Searched:
    """A search whose trials rank 20 of 60 users."""
    values = {"evaluation.max_users": 20, "study.n_trials": 4, "study.pruner": "none"}
    return search(ratings, tmp_path_factory.mktemp("sample"), values)


def data_of(searched: Searched) -> Interactions:
    folder = searched.folder.parents[1]
    return load(prepare(searched.config, folder), "validation", negatives=False)


def test_the_leading_trials_are_ranked_on_all_users(searched: Searched) -> None:
    trials = searched.outcome.summaries
    leading = find_leaders(trials, 3)
    assert {t.number for t in trials if t.on_all_users} == {t.number for t in leading} != set()
    for trial in leading:
        assert trial.on_all_users is not None
        config = searched.record.config_of(trial.number)
        config = replace_values(config, {"evaluation.max_users": None})
        seed = trial_seed(config.study.seed, trial.number)
        epochs = list(fit(config, data_of(searched), seed, n_epochs=trial.epoch))
        assert trial.on_all_users.value == pytest.approx(epochs[-1].metrics["val_ndcg_at_10"])
        error = epochs[-1].metrics["val_ndcg_at_10_se"]
        assert trial.on_all_users.standard_error == pytest.approx(error)
    best = best_trial(trials)
    assert best is not None
    assert best.on_all_users is not None
    assert best.on_all_users.value == max(t.on_all_users.value for t in leading if t.on_all_users)


def test_a_resumed_search_ranks_only_what_is_missing(
    searched: Searched, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Leaders(
        searched.record,
        searched.config,
        ray.put(data_of(searched)),
        searched.folder / "trials",
        slots=SLOTS,
        gpu_device="cpu",
    )
    started: list[int] = []
    start = Leaders._start

    def note_start(self: Leaders, trial: TrialSummary) -> Any:
        started.append(trial.number)
        return start(self, trial)

    monkeypatch.setattr(Leaders, "_start", note_start)
    found.rank(None, lambda: False)
    assert started == []
    first = ranked_by_value(searched.record.summaries())[0]
    assert first.on_all_users is not None
    del searched.record._on_all_users[first.number]
    found.rank(None, lambda: False)
    assert started == [first.number]
    assert searched.record.summary(first.number).on_all_users == first.on_all_users


class Prepared:
    """Leaders of ended trials in memory, whose ranking took half a second for 20 of 60 users."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **values: object) -> None:
        monkeypatch.setattr(ray, "get", lambda data: data)
        settings = {"evaluation__max_users": 20, "training__max_epochs": 1, **values}
        self.search = Search(1, **settings)
        self.config = self.search.record.base
        self.leaders = Leaders(
            self.search.record,
            self.config,
            two_tastes(),
            Path("trials"),
            slots=SLOTS,
            gpu_device="cpu",
        )

    def end(self, value: float) -> int:
        number = self.search.begin()
        metrics = {"val_ndcg_at_10": value, "val_ndcg_at_10_se": 0.03, "rank_seconds": 0.5}
        self.search.record.report(number, 1, value, metrics)
        self.search.record.finish(number, "complete")
        return number


def test_the_time_that_is_reserved(monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = Prepared(monkeypatch, study__time_budget=100)
    assert prepared.leaders.seconds_to_reserve(5) == 0
    for value in (0.5, 0.45, 0.4):
        prepared.end(value)
    # The third is 0.1 below the best, more than 2 sqrt(0.03^2 + 0.03^2) = 0.085. The other two are
    # ranked side by side, each in 0.5 s x 60 / 20, once the trials have
    # stopped in 10 s and the workers started in 5 s.
    assert prepared.leaders.seconds_to_reserve(5) == pytest.approx(15 + 1.5)
    prepared.end(0.46)
    assert prepared.leaders.seconds_to_reserve(5) == pytest.approx(15 + 2 * 1.5)
    short = Prepared(monkeypatch, study__time_budget=20)
    short.end(0.5)
    assert short.leaders.seconds_to_reserve(5) == 20 / 4


@pytest.mark.parametrize("max_users", [None, 60, 1000])
def test_nothing_is_ranked_again_where_all_users_were(
    max_users: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = Prepared(monkeypatch, evaluation__max_users=max_users)
    prepared.end(0.5)
    assert prepared.leaders.seconds_to_reserve(5) == 0
    monkeypatch.setattr(leaders, "_rank_on_all_users", None)
    prepared.leaders.rank(None, lambda: False)
    assert prepared.search.record.summaries()[0].on_all_users is None


def test_without_time_the_sample_decides_and_a_warning_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    prepared = Prepared(monkeypatch)
    first = prepared.end(0.5)
    with caplog.at_level(logging.WARNING):
        prepared.leaders.rank(0.0, lambda: False)
    assert (
        f"No time was left to rank trial {first} on all users: the values on 20 users"
        in caplog.text
    )
    best = best_trial(prepared.search.record.summaries())
    assert best is not None
    assert (best.number, best.on_all_users) == (first, None)


def test_a_best_trial_that_has_not_ended_leaves_nothing_to_rank(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    prepared = Prepared(monkeypatch, study__time_budget=100)
    prepared.end(0.5)
    assert prepared.leaders.seconds_to_reserve(5) == pytest.approx(15 + 1.5)
    running = prepared.search.begin()
    prepared.search.record.report(running, 1, 0.51, {"val_ndcg_at_10_se": 0.03})
    assert prepared.leaders.seconds_to_reserve(5) == 0
    prepared.leaders.rank(100.0, lambda: False)
    assert f"Trial {running} leads and has not ended" in caplog.text
    # A running trial that is not the best leaves the ended ones to rank.
    prepared.end(0.52)
    assert prepared.leaders.seconds_to_reserve(5) == pytest.approx(15 + 1.5)


def test_an_interrupted_search_ranks_nothing_more(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    prepared = Prepared(monkeypatch)
    prepared.end(0.5)
    prepared.leaders.rank(None, lambda: True)
    assert caplog.text == ""


def test_leaders_are_within_two_standard_errors_of_the_difference() -> None:
    trials = [
        dataclasses.replace(summary(number, "complete", value), standard_error=error)
        for number, (value, error) in enumerate(
            [(0.50, 0.03), (0.41, 0.04), (0.39, 0.04), (0.42, 0.0), (0.45, None)]
        )
    ]
    # 2 sqrt(0.03^2 + 0.04^2) = 0.1 and 2 x 0.03 = 0.06; without an error, nothing is ruled out.
    assert [trial.number for trial in find_leaders(trials, 5)] == [0, 4, 1]
    assert [trial.number for trial in find_leaders(trials, 3)] == [0, 4]
    assert find_leaders([], 3) == []


def test_a_choice_can_change_on_all_users() -> None:
    trials = [summary(0, "complete", 0.5), summary(1, "complete", 0.4)]
    assert best_trial(trials) == trials[0]
    trials = [
        dataclasses.replace(trial, on_all_users=OnAllUsers(value, None, 1))
        for trial, value in zip(trials, (0.40, 0.45), strict=True)
    ]
    assert best_trial(trials) == trials[1]
