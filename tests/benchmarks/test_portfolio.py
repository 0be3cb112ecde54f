"""The starts of a search: the loss of an order, and the greedy choice, by hand."""

import math
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.portfolio import pruning
from benchmarks.portfolio.choose import (
    FAMILY_SHIFT,
    FIRST_SECONDS,
    LAST_SECONDS,
    SHIFT,
    choose,
    copies,
    loss,
    scores,
)
from benchmarks.portfolio.configs import family, propose, proposed_for, sampled_configs, set_of
from benchmarks.portfolio.pruning import Curve
from benchmarks.shapes import SHAPES
from recsys.config.schema import Config, replace_values
from recsys.search.space.space_file import read_space

SPACE = Path(__file__).parents[2] / "search_spaces" / "ncf.yaml"
HALF = math.sqrt(FIRST_SECONDS * LAST_SECONDS)
"""Seconds in the middle between the first and the last, on the logarithmic scale."""


def curve(score: float, seconds: float) -> Curve:
    """Return a run of the same score in each epoch, the first of which takes `seconds`."""
    return Curve(np.full(20, score), np.linspace(seconds, seconds + 1e-5, 20))


def test_loss_counts_1_until_the_first_report() -> None:
    assert loss({0: curve(0.6, HALF)}, [0]) == pytest.approx(0.5 * 1 + 0.5 * 0.4, abs=1e-3)


def test_loss_keeps_the_best_so_far_and_ends_with_the_last_second() -> None:
    curves = {0: curve(0.8, 1.0), 1: curve(0.1, 1.0), 2: curve(1.0, 5000.0)}
    assert loss(curves, [0, 1, 2]) == pytest.approx(0.2, abs=1e-3)


def test_a_config_that_diverged_adds_nothing_to_an_order() -> None:
    assert loss({0: curve(0.8, 1.0)}, [7, 0]) == pytest.approx(0.2, abs=1e-3)


def test_choose_takes_the_cheap_config_before_the_better_and_dear_one() -> None:
    # Alone, the dear one has a loss of .5 and the cheap ones .4 and .45.
    curves = {0: curve(1.0, HALF), 1: curve(0.6, 1.0), 2: curve(0.55, 1.0)}
    assert choose([curves], 2, without=()) == [1, 0]
    assert choose([curves], 2, without={1}) == [2, 0]


def test_choose_takes_configs_that_complete_each_other() -> None:
    # 1 is second best on its own, but good where 0 is good; 2 alone helps on the second set.
    first = {0: curve(1.0, 1.0), 1: curve(0.9, 1.0), 2: curve(0.0, 1.0)}
    second = {0: curve(0.2, 1.0), 1: curve(0.25, 1.0), 2: curve(1.0, 1.0)}
    assert choose([first, second], 2, without=()) == [0, 2]


def test_scores_lie_between_the_median_and_the_best() -> None:
    rows = [
        *({"number": 0, "set": "a", "epoch": e, "value": v} for e, v in ((1, 0.2), (20, 0.1))),
        {"number": 1, "set": "a", "epoch": 1, "value": 0.4},
        {"number": 2, "set": "a", "epoch": 1, "value": 0.3},
        {"number": 3, "set": "a", "epoch": 0, "value": np.nan},  # diverged
    ]
    runs = pd.DataFrame(rows).assign(train_seconds=2.0, rank_seconds=1.0)
    curves = scores(runs)["a"]
    assert list(curves) == [0, 1, 2]
    # The best is .4, the median of .2, .3 and .4 is .3.
    assert [of.values.max() for of in curves.values()] == pytest.approx([-1.0, 1.0, 0.0])
    assert curves[1].seconds[0] == 3.0


def test_copies_shift_families_and_whole_runs_and_have_a_best_score_of_1() -> None:
    rising = np.linspace(0, 0.5, 20)
    curves = {number: Curve(rising + number / 10, np.arange(20.0)) for number in range(5)}
    families = [("a",), ("a",), ("a",), ("b",), ("b",)]
    found = copies(curves, families, "one", 200)
    assert copies(curves, families, "two", 1)[0][0].values[0] != found[0][0].values[0]
    for copied in found:
        assert max(of.values.max() for of in copied.values()) == pytest.approx(1)
        np.testing.assert_allclose(np.diff(copied[3].values), np.diff(curves[3].values))
    first = np.array([[copied[number].values[0] for number in curves] for copied in found])
    within, between = first[:, 4] - first[:, 3], first[:, 3] - first[:, 2]
    assert within.mean() == pytest.approx(0.1, abs=0.03)
    assert within.std() == pytest.approx(SHIFT * math.sqrt(2), rel=0.15)
    both = math.hypot(SHIFT * math.sqrt(2), FAMILY_SHIFT * math.sqrt(2))
    assert between.std() == pytest.approx(both, rel=0.15)


def test_a_config_is_proposed_for_one_data_set() -> None:
    names = list(SHAPES)
    assert set_of(23) == names[23 % 9]
    assert proposed_for(names[5], 42) == {23, 32, 41}


def test_sampled_configs_are_balanced_over_the_families() -> None:
    tried = list(islice(sampled_configs(read_space(SPACE)), 3 + 20))
    counts = pd.Series([family(config) for config in tried[3:]]).value_counts()
    assert len(counts) == 15
    assert {key[0] for key in counts[counts == 2].index} == {"inner_product"}
    assert (counts[counts == 2].size, counts[counts == 1].size) == (5, 10)


def test_a_proposal_is_a_point_of_the_space_near_what_did_well() -> None:
    space = read_space(SPACE)
    tried = list(islice(sampled_configs(space), 56))
    values = [1.0 if config["training.loss"] == "squared" else 0.0 for config in tried]
    found = [propose(space, tried[:n], values[:n]) for n in range(43, 56)]
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
