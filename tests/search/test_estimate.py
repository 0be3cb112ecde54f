"""What fits into a search, by hand, and the ends of a space."""

from collections.abc import Mapping
from typing import Any

import pytest

from recsys.config.schema import Config, replace_values
from recsys.data.manifest import Manifest
from recsys.search import ends
from recsys.search.costs.work import EpochSeconds, expected_seconds
from recsys.search.ends import find_ends
from recsys.search.estimate import Prediction, Trials, estimate, expect_trials
from recsys.search.space.space_file import parse_space
from recsys.search.tuning.measurement import Measured

SIZES = Manifest.model_construct(
    n_users=1000, n_items=500, n_train=50_000, n_low=0, n_validation=1000
)
GIB = 1 << 30


def config_of(**values: object) -> Config:
    return replace_values(
        Config(), {path.replace("__", "."): value for path, value in values.items()}
    )


class Predicted:
    """Predicted times by the batch size of a config: a thousandth of it to train."""

    is_measured = True

    def __init__(self, rank: float = 0.0, rank_all: float = 0.0) -> None:
        self.rank, self.rank_all = rank, rank_all

    def predict(self, config: Config) -> EpochSeconds:
        return EpochSeconds(config.training.batch_size / 1000, self.rank, self.rank_all)


def expected(
    values: dict[str, object], *, share: float = 1.0, rank: float = 0.0, rank_all: float = 0.0
) -> Trials | None:
    """Return what trials take that train an epoch in 1, 2 and 6 s, two at a time."""
    config = replace_values(Config(), {"training.max_epochs": 8, **values})
    drawn = [replace_values(config, {"training.batch_size": size}) for size in (1000, 2000, 6000)]
    return expect_trials(
        config, drawn, Predicted(rank, rank_all), n_slots=2, n_segments=1, mean_share=share
    )


def test_trials_without_a_budget() -> None:
    # Of 8 epochs a pruner leaves 2; every second epoch is ranked for 3 s.
    trials = expected({"evaluation.every": 2}, share=0.25, rank=3.0)
    assert trials == Trials(2 * (3 + 1.5), 8, rank_ratio=0.5, left_out=0.0)
    # A quarter of them rank all users once, for 6 s.
    trials = expected({"evaluation.every": 2}, share=0.25, rank=3.0, rank_all=6.0)
    assert trials == Trials(2 * (3 + 1.5) + 1.5, 8, rank_ratio=0.75, left_out=0.0)
    # No trial trains less than an epoch.
    assert expected({}, share=0.01) == Trials(3.0, 8, rank_ratio=0.0, left_out=0.0)


def test_trials_that_are_planned_for_a_budget() -> None:
    # Two slots of 100 s, half of them for 25 trials: a first report may take 4 s, and a trial, of
    # which a quarter is trained, 16 s: 8 of the first kind's epochs, 8 of the second's.
    assert expected({"study.time_budget": 100}, share=0.25) == Trials(
        2 * 1.5, 8, rank_ratio=0.0, left_out=1 - 2 / 3
    )
    # In 50 s a trial takes 8 s: 8 epochs, and 4 of the second kind.
    assert expected({"study.time_budget": 50}, share=0.25) == Trials(
        (2 * 1 + 1 * 2) / 2, 6, rank_ratio=0.0, left_out=1 - 2 / 3
    )
    assert expected({"study.time_budget": 10}, share=0.25) is None


def estimated(values: Mapping[str, object], trials: Trials | None, memory: int | None = GIB) -> Any:
    config = replace_values(Config(), values)
    dear = Measured(EpochSeconds(30.0, 10.0), memory)
    return estimate(config, trials, dear, n_slots=2, memory=5 * GIB)


def test_trials_that_fit_and_their_time() -> None:
    trials = Trials(30.0, 5, rank_ratio=0.2, left_out=0.1)
    assert estimated({"study.time_budget": 600}, trials) == {
        "trials": 40,
        "seconds": 600.0,
        "seconds_per_trial": 30.0,
        "epochs_per_trial": 5,
        "left_out": 0.1,
        "warnings": [],
    }
    few = estimated({"study.time_budget": 600, "study.n_trials": 9}, trials)
    assert (few["trials"], few["seconds"], few["warnings"]) == (9, 135.0, [])
    assert estimated({}, trials)["seconds"] == 30 * 30.0 / 2
    # A single trial takes its time, however many could run beside it.
    assert estimated({"study.n_trials": 1}, trials)["seconds"] == 30.0


def test_warnings_of_the_budget() -> None:
    trials = Trials(30.0, 5, rank_ratio=0.2, left_out=0.4)
    assert estimated({"study.time_budget": 39}, trials)["warnings"] == [
        "An epoch at the dear end takes 0:40, longer than the time budget, 0:39. Narrow the space, "
        "or raise study.time_budget.",
        "Of the space, 40% takes longer until a first report than a trial's share of the time "
        "budget, and is tried last. Narrow the space, or raise study.time_budget.",
        "The time budget is enough for about 2 trials; a search needs some 20 to learn from. "
        "Raise study.time_budget, or narrow the space.",
    ]
    # Nobody asked for more than two.
    asked = {"study.n_trials": 2, "study.time_budget": 40}
    assert estimated(asked, Trials(30.0, 5, 0.2, 0.1))["warnings"] == []
    nothing = estimated({"study.time_budget": 40}, None)
    assert (nothing["trials"], nothing["seconds_per_trial"]) == (0, None)
    assert [warning.partition(" ")[0] for warning in nothing["warnings"]] == ["Of", "The"]


def test_warnings_of_ranking_and_memory() -> None:
    assert estimated({}, Trials(30.0, 5, rank_ratio=2.5, left_out=0.0), 3 * GIB)["warnings"] == [
        "Ranking takes 2.5 times as long as training on average. Lower evaluation.max_users, or "
        "raise evaluation.every.",
        "2 trials at the dear end take 6.0 GiB of memory, and the cluster has 5.0 GiB. Lower "
        "study.max_concurrent, or narrow the space.",
    ]
    assert estimated({}, Trials(30.0, 5, 2.0, 0.0), None)["warnings"] == []


def test_the_ends_of_a_space() -> None:
    space = parse_space(
        {
            "parameters": {
                "model.name": {"choices": ["gmf", "mlp"]},
                "model.embedding_dim": {"low": 8, "high": 64, "log": True},
                "model.n_layers": {"low": 1, "high": 3, "when": {"model.name": ["mlp"]}},
                "training.batch_size": {"low": 256, "high": 4096},
                "training.n_negatives": {"low": 1, "high": 32},
                "training.learning_rate": {"low": 1e-3, "high": 1e-2},
            }
        },
        "",
    )
    cheap, dear = find_ends(space, Config(), SIZES)
    step_size = "training.learning_rate"  # costs nothing
    assert {path: cheap.point[path] for path in cheap.point if path != step_size} == {
        "model.name": "gmf",
        "model.embedding_dim": 8,
        "training.batch_size": 4096,
        "training.n_negatives": 1,
    }
    assert {path: dear.point[path] for path in dear.point if path != step_size} == {
        "model.name": "mlp",
        "model.embedding_dim": 64,
        "model.n_layers": 3,
        "training.batch_size": 256,
        "training.n_negatives": 32,
    }
    assert (cheap.config.training.batch_size, dear.config.training.batch_size) == (4096, 256)


def test_sampled_configs_are_of_the_space_and_the_same_again() -> None:
    space = parse_space({"parameters": {"model.embedding_dim": {"low": 8, "high": 64}}}, "")
    first, second = ([*ends.sample_configs(space, Config())] for _ in range(2))
    dims = {config.model.embedding_dim for config in first}
    assert first == second
    assert len(first) == 100
    assert 8 <= min(dims) < 20
    assert 50 < max(dims) <= 64


def test_predictions_follow_what_was_measured() -> None:
    base = Config()
    expected = expected_seconds(base, SIZES)
    slow = EpochSeconds(expected.train * 4, expected.rank * 9)
    other = config_of(model__name="gmf", model__embedding_dim=64)
    prediction = Prediction([(base, slow)], SIZES)
    # One measurement counts 1 / 1.25 for all configs, and half of the rest for its kind: `costs`.
    of_other = expected_seconds(other, SIZES)
    assert prediction.predict(other).train == pytest.approx(of_other.train * 4**0.8)
    assert prediction.predict(other).rank == pytest.approx(of_other.rank * 9**0.8)
    assert prediction.predict(base).train == pytest.approx(expected.train * 4**0.9)
    assert prediction.predict(base).rank == pytest.approx(expected.rank * 9**0.9)
