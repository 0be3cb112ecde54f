from collections.abc import Sequence

import numpy as np
import pytest

from recsys.final.selection import Step, select, weights_of

MARGINS = np.array(
    [
        [1, 1, 1, -1, -1],
        [-1.5, -1.5, -1.5, 3, -3],
        [-9, -9, -9, -9, 2],
    ]
)
"""By candidate and user, how much higher the held-out item scores than the best other item."""


def share_of_hits(chosen: Sequence[int]) -> float:
    return float((MARGINS[list(chosen)].mean(0) > 0).mean())


def test_a_candidate_is_selected_twice_where_that_helps() -> None:
    # Alone the candidates hit 3, 1 and 1 of 5 users. No two are better than the first: with the
    # second it hits one user, with itself 3. Twice the first and once the second hit 4.
    assert share_of_hits((0, 1)) == 0.2
    assert share_of_hits((0, 0, 1)) == 0.8
    steps = select(3, 3, share_of_hits)
    assert steps == [Step(0, 0.6), Step(0, 0.6), Step(1, 0.8)]
    assert weights_of([step.candidate for step in steps]) == {
        0: pytest.approx(2 / 3),
        1: pytest.approx(1 / 3),
    }


def test_steps_after_the_best_ensemble_are_dropped() -> None:
    # A fourth step can only lose: three times the first and the second hit 3, ties being no hits.
    assert share_of_hits((0, 0, 0, 1)) == 0.6
    assert select(3, 4, share_of_hits) == select(3, 3, share_of_hits)


def test_of_equal_values_the_first_candidate_and_the_fewest_steps_are_taken() -> None:
    assert select(3, 4, lambda _: 0.5) == [Step(0, 0.5)]
