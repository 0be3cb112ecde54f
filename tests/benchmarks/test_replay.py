"""Worlds between recorded runs, and simulated searches on them."""

from typing import Any

import numpy as np
import pytest

from benchmarks.portfolio.pruning import Curve
from benchmarks.portfolio.replay import SimulatedSearch, difference, found
from benchmarks.portfolio.worlds import World
from recsys.config.schema import Config, replace_values
from recsys.search.space.search_space import SearchSpace
from recsys.search.space.space_file import parse_space

DIMS = (8, 12, 16, 24, 32, 48, 64)
EPOCHS = np.arange(1.0, 21.0)


@pytest.fixture
def space() -> SearchSpace:
    dim = {"low": 8, "high": 64, "log": True}
    return parse_space(
        {"parameters": {"model.embedding_dim": dim}, "warm_start": [{"model.embedding_dim": 8}]}, ""
    )


def world_of(space: SearchSpace, seed: int) -> World:
    """Return a world of runs that are the better and the dearer, the wider they are."""
    configs = [{"model.embedding_dim": dim} for dim in DIMS]
    curves = {
        number: Curve(dim / 64 - 0.3 / EPOCHS, dim / 8 * EPOCHS) for number, dim in enumerate(DIMS)
    }
    return World(space, configs, curves, seed)


def test_a_world_agrees_with_the_recorded_runs(space: SearchSpace) -> None:
    draws = []
    for seed in range(20):
        world = world_of(space, seed)
        run = world.run({"model.embedding_dim": 24}, 20)
        draws.append(run.values[-1])
        assert np.diff(run.seconds) == pytest.approx(3.0, rel=0.1)
        assert run.values[-1] - run.values[0] == pytest.approx(0.285, abs=0.05)
    # Near the recorded 24 / 64 - .3 / 20, by an error that differs between worlds.
    assert np.mean(draws) == pytest.approx(0.36, abs=0.05)
    assert 0.001 < np.std(draws) < 0.1


def test_the_same_config_has_the_same_score_again(space: SearchSpace) -> None:
    world = world_of(space, 0)
    first, again = (world.run({"model.embedding_dim": 20}, 20).values[-1] for _ in range(2))
    assert again == pytest.approx(first, abs=0.05)


def test_a_search_ends_with_its_budget_and_finds_the_wide_ones(space: SearchSpace) -> None:
    values: dict[str, Any] = {"study.time_budget": 600.0, "study.seed": 3}
    config = replace_values(Config(), values)
    reports = SimulatedSearch(world_of(space, 3), space, config).run()
    seconds = [now for now, _ in reports]
    assert seconds == sorted(seconds)
    assert 500 < seconds[-1] <= 600
    assert seconds[0] == pytest.approx(1.3, abs=0.1)  # the warm start: an epoch of d = 8
    assert max(score for _, score in reports) > 0.75


def test_the_best_score_at_parts_of_the_budget() -> None:
    reports = [(30.0, 0.4), (40.0, 0.2), (60.0, 0.7)]
    assert found(reports, 100.0) == [0.0, 0.4, 0.7]


def test_a_difference_has_an_interval_over_worlds() -> None:
    rng = np.random.default_rng(0)
    others = rng.normal(size=(9, 50))
    mean, low, high = difference(others + 0.5 + rng.normal(0, 0.1, (9, 50)), others)
    assert low < mean < high
    assert mean == pytest.approx(0.5, abs=0.02)
    # The standard error is .1 / sqrt(450).
    assert high - low == pytest.approx(2 * 1.96 * 0.1 / 450**0.5, rel=0.3)
