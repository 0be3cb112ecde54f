"""Users and epochs that are ranked, worked out by hand for data of unlike shapes."""

import pytest

from recsys.config.schema import Config, replace_values
from recsys.data.manifest import FORMAT_VERSION, Manifest
from recsys.data.resolve import resolve


def manifest(
    n_users: int, n_items: int, n_train: int, n_validation: int, *, given: int | None = None
) -> Manifest:
    counts = dict.fromkeys((name for name in Manifest.model_fields if name.startswith("n_")), 0)
    counts |= {"n_users": n_users, "n_items": n_items}
    counts |= {"n_train": n_train, "n_validation": n_validation}
    return Manifest.model_validate(
        {
            **counts,
            "format_version": FORMAT_VERSION,
            "source": "x",
            "checksum": "",
            "settings": {},
            "n_candidates_given": given,
            "has_times": False,
            "notes": [],
            "seconds": 0.0,
            "files": {},
        }
    )


def resolved(data: Manifest, **evaluation: object) -> tuple[object, object]:
    paths = {f"evaluation.{name}": value for name, value in evaluation.items()}
    found = resolve(replace_values(Config(), paths), data).evaluation
    return found.max_users, found.every


def test_all_users_where_they_cost_less_than_a_quarter_of_an_epoch() -> None:
    # A quarter of 5 x 50,236 samples is 62,795; a user costs 0.01 x 9,066: enough for 692.
    assert resolved(manifest(671, 9_066, 50_236, 666)) == (None, 1)


def test_as_many_users_as_a_quarter_of_an_epoch_pays_for() -> None:
    # 0.25 x 5 x 762,133 = 952,666.25; a user costs 385.01.
    assert resolved(manifest(30_000, 38_501, 762_133, 30_000)) == (2_474, 1)


def test_a_thousand_users_now_and_then_where_a_quarter_pays_for_less() -> None:
    # 80,393.75 pay for 154 users, each at 3 x 0.01 x 17,388. 1,000 of them cost 6.5 times as much.
    lastfm = manifest(1_885, 17_388, 64_315, 9_143)
    assert resolved(lastfm) == (1_000, 3)
    assert resolved(lastfm, max_users=200) == (200, 2)  # 1.3 times
    assert resolved(lastfm, max_users=100) == (100, 1)
    assert resolved(lastfm, max_users=None, every=1) == (None, 1)
    # No fewer than every third epoch: all 1,885 users cost 12 times as much.
    assert resolved(lastfm, max_users=None) == (None, 3)


def test_no_more_users_than_the_metric_needs() -> None:
    # A user costs 0.4 x 100; 20 million positives would pay for 625,000.
    assert resolved(manifest(100_000, 30_000, 20_000_000, 100_000, given=99)) == (10_000, 1)
    assert resolved(manifest(6_040, 3_706, 988_129, 6_040, given=99)) == (None, 1)


def test_candidates_count_and_items_do_not_where_candidates_are_ranked() -> None:
    # 0.25 x 5 x 40,000 = 50,000 pay for 1,250 users at 0.4 x 100, and 120 at 0.01 x 41,000.
    data = manifest(5_000, 41_000, 40_000, 5_000)
    assert resolved(data, protocol="sampled") == (1_250, 1)
    assert resolved(data, protocol="sampled", n_candidates=19) == (None, 1)  # 6,250
    assert resolved(data) == (1_000, 3)


def test_numbers_of_the_user_stay() -> None:
    assert resolved(manifest(30_000, 38_501, 762_133, 30_000), max_users=50, every=7) == (50, 7)


@pytest.mark.parametrize("max_users", ["auto", None, 10])
def test_what_is_resolved_once_stays(max_users: object) -> None:
    data = manifest(1_885, 17_388, 64_315, 9_143)
    once = resolve(replace_values(Config(), {"evaluation.max_users": max_users}), data)
    assert resolve(once, manifest(50, 70, 90, 50)) == once


def test_later_splits_change_nothing() -> None:
    data = manifest(1_885, 17_388, 64_315, 9_143)
    more = data.model_copy(update={"n_test": 99_999, "n_cold_users": 50, "n_interactions": 10**6})
    assert resolve(Config(), more) == resolve(Config(), data)
