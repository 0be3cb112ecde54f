"""Measurement of a config: which part of an epoch runs, and what it is taken for."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from recsys.config.schema import Config, replace_values
from recsys.data.manifest import Manifest
from recsys.search.costs.work import EpochSeconds
from recsys.search.tuning import measurement
from recsys.search.tuning.measurement import measure, times_of_segment
from tests.training.small_data import two_tastes

SIZES = Manifest.model_construct(n_users=1000, n_items=50, n_train=500_000, n_low=0)
SQUARES = {"model.name": "inner_product", "training.loss": "squared"}


def expected(config: Config, _sizes: Manifest) -> EpochSeconds:
    """Return 12 s to train an epoch, and 4 s to rank all 1,000 users."""
    return EpochSeconds(12.0, 4.0 * (config.evaluation.user_limit or 1000) / 1000)


@pytest.mark.parametrize(
    ("values", "n_segments", "n_ranked"),
    [
        # Half a second of 12 to train, and of 4 to rank.
        ({}, 24, 125),
        # Of 400 users, ranked in 1.6 s, half a second.
        ({"evaluation.max_users": 400}, 24, 125),
        ({"evaluation.max_users": 100}, 24, 100),
        # 500,000 positives are 30 batches: seven times four.
        ({"training.batch_size": 16384}, 7, 125),
        (SQUARES, 4, 125),
        ({**SQUARES, "training.recency_half_life": 5.0}, 4, 125),
    ],
)
def test_a_part_of_an_epoch_is_run(
    values: dict[str, object], n_segments: int, n_ranked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[tuple[Config, int]] = []

    def fit(config: Config, *_: Any, n_segments: int, **__: Any) -> Iterator[Any]:
        ran.append((config, n_segments))
        yield SimpleNamespace(epoch=1, metrics={"train_seconds": 2.0, "rank_seconds": 0.5})

    monkeypatch.setattr(measurement, "expected_seconds", expected)
    monkeypatch.setattr(measurement, "fit", fit)
    config = replace_values(Config(), {"evaluation.every": 3, "training.patience": 2, **values})
    measured = measure(config, cast(Any, None), SIZES)
    ((part, n),) = ran
    assert n == n_segments
    assert (part.evaluation.max_users, part.evaluation.every) == (n_ranked, 1)
    assert part.training.patience is None
    # Least squares solves the users once more in its first epoch: of two sides, or of three.
    first = 3 / 2 if values == SQUARES else 4 / 3 if "model.name" in values else 1
    assert measured.epoch.train == pytest.approx(2.0 * n / first)
    everyone = config.evaluation.user_limit or 1000
    assert measured.epoch.rank == pytest.approx(0.5 * everyone / n_ranked)


def test_it_ends_after_some_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now, n_run = [0.0], [0]

    def fit(*_: Any, **__: Any) -> Iterator[Any]:
        while True:
            now[0] += 2.0
            n_run[0] += 1
            times = {"train_seconds": 1.5 * n_run[0], "rank_seconds": 0.5 * n_run[0]}
            yield SimpleNamespace(epoch=1, metrics=times)

    monkeypatch.setattr(measurement, "expected_seconds", expected)
    monkeypatch.setattr(measurement, "fit", fit)
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    monkeypatch.setattr(measurement, "SECONDS", 5.0)
    measured = measure(Config(), cast(Any, None), SIZES)
    assert n_run == [3]
    assert measured.epoch == EpochSeconds(1.5 * 24, 0.5 * 8)


def test_the_times_of_segments() -> None:
    # An epoch's times are sums over its segments; the first segment was slow.
    reports = [
        (1, EpochSeconds(9.0, 3.0)),
        (1, EpochSeconds(10.0, 3.5)),
        (2, EpochSeconds(2.0, 0.25)),
        (2, EpochSeconds(5.0, 1.0)),
    ]
    assert times_of_segment(reports) == pytest.approx(((1 + 2 + 3) / 3, 0.75))
    assert times_of_segment(reports[:1], first_epoch=1.5) == (6.0, 3.0)
    assert times_of_segment(reports[:2], first_epoch=1.5) == pytest.approx((1 / 1.5, 0.5))


def test_a_real_training(monkeypatch: pytest.MonkeyPatch) -> None:
    data = two_tastes()
    sizes = Manifest.model_construct(
        n_users=60, n_items=40, n_train=480, n_low=120, n_validation=60
    )
    monkeypatch.setattr(measurement, "SECONDS", 0.0)
    # It would diverge with its own step size.
    config = replace_values(Config(), {"training.learning_rate": 1e30, "model.init_std": 1e30})
    measured = measure(config, data, sizes)
    assert 0 < measured.epoch.train + measured.epoch.rank < 60
    assert measured.memory is None or measured.memory > 1 << 20


def test_the_peak_of_the_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setattr(measurement, "_PROC", tmp_path)
    assert measurement._peak() is None
    measurement._reset_peak()
    (tmp_path / "status").write_text("Name:\tpython\nVmPeak:\t  900 kB\nVmHWM:\t   20 kB\n")
    (tmp_path / "clear_refs").touch()
    measurement._reset_peak()
    assert (tmp_path / "clear_refs").read_text() == "5"
    assert measurement._peak() == 20 * 1024
