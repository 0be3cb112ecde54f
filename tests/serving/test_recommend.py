"""Recommendations from a saved model, for users by their own ids."""

import pytest

from recsys.serving.recommend import find_users, recommend
from tests.serving.test_saved_model import make_model


def test_a_user_given_twice_has_one_list() -> None:
    table = recommend(make_model(), [12, "10", "12", 10], k=2)
    assert table["user_id"].to_pylist() == [12, 12, 10, 10]
    assert table["rank"].to_pylist() == [1, 2, 1, 2]
    # Users 10 and 12 have seen items 7, 99 and 20.
    assert not {7, 99} & set(table["item_id"].to_pylist()[2:])
    assert 20 not in table["item_id"].to_pylist()[:2]


def test_no_user_has_no_recommendations() -> None:
    expected = recommend(make_model(), [10], k=2).slice(length=0)
    assert recommend(make_model(), [], k=2).equals(expected)


def test_a_user_without_a_training_positive_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"^user_id: must have a positive in the training data, but 11 has none\. "
    ):
        find_users(make_model(), [10, 11])


def test_unknown_users_are_named_before_untrained_ones() -> None:
    with pytest.raises(
        ValueError, match=r"^user_id: must be a user of the training data, but got 13, x\. "
    ):
        find_users(make_model(), [11, 13, "x", 13])
