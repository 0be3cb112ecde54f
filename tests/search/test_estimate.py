"""What fits into a search, by hand, and the ends of a space."""

from typing import Any

import pytest

from recsys.config.schema import Config, replace_values
from recsys.data.manifest import Manifest
from recsys.search import ends
from recsys.search.ends import find_ends
from recsys.search.estimate import Prediction, estimate, mean_epochs
from recsys.search.space.space_file import parse_space
from recsys.search.tuning.measurement import Measured
from recsys.search.tuning.work import EpochSeconds, expected_seconds

SIZES = Manifest.model_construct(
    n_users=1000, n_items=500, n_train=50_000, n_low=0, n_validation=1000
)
GIB = 1 << 30
DEAR = EpochSeconds(30.0, 10.0)


def config_of(**values: object) -> Config:
    return replace_values(
        Config(), {path.replace("__", "."): value for path, value in values.items()}
    )


def estimated(config: Config, memory: int | None = GIB, *, rank: float = 1.0) -> dict[str, Any]:
    """Return the estimate for trials that train for 3 and 6 s, two at a time on 5 GiB.

    `rank`: seconds of ranking a trial of the first kind; the second kind takes twice as long.
    """
    sampled = [(config, EpochSeconds(3.0, rank)), (config, EpochSeconds(6.0, 2 * rank))]
    measured = {"cheap": Measured(EpochSeconds(2.0, 1.0), GIB), "dear": Measured(DEAR, memory)}
    return estimate(config, sampled, measured, n_slots=2, n_segments=1, memory=5 * GIB)


def test_the_epochs_of_a_trial() -> None:
    # Rungs 1, 3 and 9 of 20: all train one epoch, a third two more, a ninth six, a 27th eleven.
    assert mean_epochs(Config(), 1) == pytest.approx(1 + 2 / 3 + 6 / 9 + 11 / 27)
    assert mean_epochs(config_of(study__pruner="median"), 1) == 20
    # Of 7 segments an epoch, a rung after 0.5 epochs is after 4.
    half = config_of(study__grace_period=0.5, training__max_epochs=1)
    assert mean_epochs(half, 7) == pytest.approx((4 + 3 / 3) / 7)


def test_trials_that_fit_into_the_budget() -> None:
    # Without a pruner a trial takes 5 epochs of 6 s; two slots of 600 s have room for 40.
    config = config_of(study__time_budget=600, study__pruner="none", training__max_epochs=5)
    assert estimated(config) == {
        "trials": 40,
        "seconds": 600.0,
        "seconds_per_trial": 30.0,
        "warnings": [],
    }


def test_the_time_of_the_trials() -> None:
    config = config_of(study__n_trials=9, study__pruner="none", training__max_epochs=5)
    assert estimated(config) == {
        "trials": 9,
        "seconds": 135.0,
        "seconds_per_trial": 30.0,
        "warnings": [],
    }
    # Where every second epoch is ranked, an epoch takes 5.25 s on average.
    second = estimated(replace_values(config, {"evaluation.every": 2}))
    assert second["seconds_per_trial"] == 5 * 5.25
    both = estimated(replace_values(config, {"study.time_budget": 600}))
    assert (both["trials"], both["warnings"]) == (9, [])


def test_warnings_of_the_budget() -> None:
    config = config_of(study__time_budget=39, study__pruner="none", training__max_epochs=5)
    assert estimated(config)["warnings"] == [
        "An epoch at the dear end takes 0:40, longer than the time budget, 0:39: such a trial "
        "never reports. Narrow the space, or raise study.time_budget.",
        "Only about 2 trials fit into the time budget; a search needs some 20 to learn from. "
        "Raise study.time_budget, lower training.max_epochs, or narrow the space.",
    ]
    # Nobody asked for more than two.
    few = replace_values(config, {"study.n_trials": 2, "study.time_budget": 40})
    assert estimated(few)["warnings"] == []


def test_warnings_of_the_settings() -> None:
    # Every second epoch is ranked, for 5 times as long as training takes.
    config = config_of(study__n_trials=9, evaluation__every=2)
    assert estimated(config, 3 * GIB, rank=15.0)["warnings"] == [
        "Ranking takes 2.5 times as long as training on average. Lower evaluation.max_users, or "
        "raise evaluation.every.",
        "2 trials at the dear end take 6.0 GiB of memory, and the cluster has 5.0 GiB. Lower "
        "study.max_concurrent, or narrow the space.",
    ]
    assert estimated(config, None, rank=5.9)["warnings"] == []


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
