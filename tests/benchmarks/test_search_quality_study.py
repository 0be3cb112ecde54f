"""The record of a real search, and its values on all users, trained again from the seeds."""

import shutil
from pathlib import Path

import pytest

from benchmarks.search_quality.outcome import held
from benchmarks.search_quality.scores import score
from benchmarks.search_quality.study import read_study
from tests.small_search import open_optuna, search

pytestmark = pytest.mark.usefixtures("ray_here")


def test_values_on_all_users_are_those_of_the_same_search_that_ranked_all(
    ratings: Path, tmp_path: Path
) -> None:
    # The default config and a warm start, which do not depend on what the search finds.
    values = {"study.n_trials": 2, "study.pruner": "none"}
    sampled = search(
        ratings, tmp_path / "sampled", {**values, "evaluation.max_users": 20}, tracked=True
    )
    on_all = search(ratings, tmp_path / "all", values)
    answer = {"best": {"trial": "1", "epoch": 3}, "trials": [{}, {}]}
    began = open_optuna(sampled.folder).trials[0].datetime_start
    assert began is not None

    record = read_study(tmp_path / "sampled", "s", began.timestamp(), answer)
    assert not record.ranks_all
    assert (record.starts, record.best, record.n_trials) == ([0, 1], (1, 3), 2)
    stored = {
        (trial.number, epoch): value
        for trial in open_optuna(sampled.folder).trials
        for epoch, value in trial.intermediate_values.items()
    }
    assert {(r.trial, r.epoch): r.value for r in record.reports} == stored
    assert sorted(r.seconds for r in record.reports) == [r.seconds for r in record.reports]
    assert record.first_complete is not None
    assert 0 < record.reports[0].seconds < record.first_complete

    assert all(str(ratings.parent) not in config for _, config in record.trials.values())
    shutil.copy(ratings, tmp_path / "sampled")
    scored = score(record, tmp_path / "sampled")
    assert scored.difference == 0.0
    assert {r.trial for r in record.on_all_users} == {0, 1}
    assert scored.scores.keys() == record.to_score() | {
        (r.trial, r.epoch) for r in record.on_all_users
    }
    assert len(list(held(record))) > 1
    reference = open_optuna(on_all.folder).trials
    for (trial, epoch), value in scored.scores.items():
        assert value == reference[trial].intermediate_values[epoch]
    assert any(value != stored[key] for key, value in scored.scores.items())


def test_a_search_that_ranked_all_users_keeps_its_values(ratings: Path, tmp_path: Path) -> None:
    found = search(ratings, tmp_path, {"study.n_trials": 1}, tracked=True)
    answer = {"best": {"trial": "0", "epoch": 1}, "trials": [{}]}
    record = read_study(tmp_path, "s", 0.0, answer)
    assert record.ranks_all
    scored = score(record, tmp_path / "nothing to train on")
    values = open_optuna(found.folder).trials[0].intermediate_values
    assert scored.scores[0, 1] == values[1]
    assert scored.difference == 0.0
