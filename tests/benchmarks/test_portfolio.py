"""The starts of a search: the area under the regret, and the greedy order, by hand."""

import math
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.portfolio import pruning
from benchmarks.portfolio.choose import Table, area, choose, regrets
from benchmarks.portfolio.configs import family, propose, sampled_configs
from recsys.config.schema import Config, replace_values
from recsys.search.space.space_file import read_space

SPACE = Path(__file__).parents[2] / "search_spaces" / "ncf.yaml"
HALF = math.sqrt(10 * 1200)
"""Seconds in the middle between the first and the last, on the logarithmic scale."""


def test_area_counts_regret_1_until_the_first_config_ends() -> None:
    assert area(np.array([0.5]), np.array([HALF])) == pytest.approx(0.5 * 1 + 0.5 * 0.5)


def test_area_keeps_the_best_so_far() -> None:
    found = area(np.array([0.2, 0.9]), np.array([10.0, HALF - 10]))
    assert found == pytest.approx(0.2)


def test_area_ignores_what_ends_after_the_last_second() -> None:
    assert area(np.array([0.4, 0.0]), np.array([10.0, 5000.0])) == pytest.approx(0.4)


def test_choose_takes_the_cheap_config_before_the_better_and_dear_one() -> None:
    # Alone, the dear one has .5 and the cheap one .4; together, cheap first, .5 * .4 + .5 * 0 = .2.
    table = Table(
        np.arange(3),
        ("a",),
        np.array([[0.0], [0.4], [0.5]]),
        np.array([[HALF], [1.0], [1.0]]),
    )
    assert choose(table, [0], 3)[:2] == [1, 0]


def test_choose_takes_configs_that_complete_each_other() -> None:
    # B is second best on its own, but good where A is good; C alone helps on the second set.
    table = Table(
        np.arange(3),
        ("a", "b"),
        np.array([[0.0, 0.8], [0.1, 0.75], [1.0, 0.0]]),
        np.full((3, 2), 1.0),
    )
    assert choose(table, [0, 1], 2) == [0, 2]


def test_choose_stops_when_nothing_is_gained() -> None:
    table = Table(np.arange(2), ("a",), np.array([[0.0], [0.5]]), np.full((2, 1), 1.0))
    assert choose(table, [0], 2) == [0]


def test_choose_reads_only_its_data_sets() -> None:
    table = Table(
        np.arange(2), ("a", "b"), np.array([[0.0, 1.0], [1.0, 0.0]]), np.full((2, 2), 1.0)
    )
    assert choose(table, [1], 1) == [1]


def test_regrets_lie_between_the_best_and_the_median() -> None:
    rows = [
        *({"number": 0, "set": "a", "epoch": e, "value": v} for e, v in ((1, 0.2), (2, 0.1))),
        {"number": 1, "set": "a", "epoch": 1, "value": 0.4},
        {"number": 2, "set": "a", "epoch": 1, "value": 0.3},
        {"number": 3, "set": "a", "epoch": 0, "value": np.nan},  # diverged
    ]
    table = regrets(pd.DataFrame(rows).assign(train_seconds=2.0, rank_seconds=1.0))
    assert table.numbers.tolist() == [0, 1, 2, 3]
    # The best is .4, the median of .2, .3 and .4 is .3.
    assert table.regret[:, 0].tolist() == pytest.approx([1.0, 0.0, 1.0, 1.0])
    assert table.seconds[:, 0].tolist() == [3.0, 3.0, 3.0, 3.0]


def test_sampled_configs_are_balanced_over_the_families() -> None:
    tried = list(islice(sampled_configs(read_space(SPACE)), 3 + 20))
    counts = pd.Series([family(config) for config in tried[3:]]).value_counts()
    assert len(counts) == 15
    assert {key[0] for key in counts[counts == 2].index} == {"inner_product"}
    assert (counts[counts == 2].size, counts[counts == 1].size) == (5, 10)


def test_a_proposal_is_a_point_of_the_space_near_what_did_well() -> None:
    space = read_space(SPACE)
    tried = list(islice(sampled_configs(space), 43))
    values = [1.0 if config["training.loss"] == "squared" else 0.0 for config in tried]
    found = [propose(space, tried[:n], values[:n]) for n in range(30, 43)]
    assert all(space.point(replace_values(Config(), point)) == point for point in found)
    assert sum(point["training.loss"] == "squared" for point in found) > len(found) / 2


def test_a_recorded_run_is_interpolated_and_a_cut_one_stays_at_its_last_value() -> None:
    run = pd.DataFrame(
        {"epoch": [1, 4], "value": [0.1, 0.3], "train_seconds": [1.0, 4.0], "rank_seconds": 1.0}
    )
    curve = pruning.curve_of(run)
    # On the scale of log epochs, 2 is half-way between 1 and 4. It was cut at 5 s after 4 epochs.
    assert curve.values[[0, 1, 3, 19]].tolist() == pytest.approx([0.1, 0.2, 0.3, 0.3])
    assert curve.seconds[[0, 3, 19]].tolist() == pytest.approx([2.0, 5.0, 25.0])


@pytest.mark.parametrize(("first_rung", "last"), [(1, 0.5), (4, 0.9)])
def test_a_slow_learner_survives_only_a_late_rung(first_rung: int, last: float) -> None:
    # From its third epoch on, the second config is the better one; on two slots both start at once.
    epochs = np.arange(1.0, 21.0)
    curves = {
        0: pruning.Curve(np.full(20, 0.5), epochs),
        1: pruning.Curve(np.where(epochs < 3, 0.1, 0.9), epochs),
    }
    reports = pruning.search(curves, [0, 1], first_rung, 3)
    assert max(value for _, value in reports) == last
    # The first config reports each rung before the other one, and so passes it.
    assert len(reports) == {1: 20 + 1, 4: 20 + 20}[first_rung]
