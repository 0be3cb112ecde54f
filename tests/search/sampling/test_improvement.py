"""Proposals by expected improvement for its cost, and their parts, by hand or by integration."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import optuna
import pytest
import torch
from torch import Tensor

from recsys.config.schema import Config, replace_values
from recsys.search.costs.work import EpochSeconds
from recsys.search.record.study_record import StudyRecord
from recsys.search.record.summaries import OnAllUsers
from recsys.search.sampling.candidates import candidates, change
from recsys.search.sampling.gaussian_process import GaussianProcess, Scales
from recsys.search.sampling.improvement import (
    ExpectedImprovement,
    expected_improvement,
    standardised,
)
from recsys.search.sampling.observations import observe
from recsys.search.sampling.vectors import Vectors
from recsys.search.space.search_space import SearchSpace
from recsys.search.space.space_file import parse_space

TWO_VARIANTS: dict[str, Any] = {
    "model.name": {"choices": ["gmf", "mlp"]},
    "model.n_layers": {"low": 1, "high": 3, "when": {"model.name": "mlp"}},
    "training.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
    "training.l2": {"low": 0.0, "high": 0.1},
}
RATE = {"training.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}}


def space_of(parameters: Mapping[str, Any]) -> SearchSpace:
    return parse_space({"parameters": parameters}, "")


class Seconds:
    """Predicted time of an epoch by model, one second of those that are not named."""

    is_measured = True

    def __init__(self, **by_model: float) -> None:
        self.by_model = by_model

    def predict(self, config: Config) -> EpochSeconds:
        return EpochSeconds(self.by_model.get(config.model.name, 1.0), 0.0)


class Search:
    """Trials with given points, and the sampler."""

    def __init__(self, parameters: Mapping[str, Any], **seconds: float) -> None:
        self.space = space_of(parameters)
        self.study = optuna.create_study(direction="maximize")
        self.config = replace_values(Config(), {"training.max_epochs": 4})
        self.record = StudyRecord(self.study, self.config, self.space)
        self.record.use(ExpectedImprovement(0, self.record, Seconds(**seconds)))

    def begin(self, **point: Any) -> int:
        by_path = {path.replace("__", "."): value for path, value in point.items()}
        self.study.enqueue_trial(self.space.by_name(by_path))
        return self.record.ask()[0]

    def run(self, *values: float, state: str = "complete", **point: Any) -> int:
        number = self.begin(**point)
        for epoch, value in enumerate(values, start=1):
            self.record.report(number, epoch, value, {})
        self.record.finish(number, state)
        return number

    def propose(self, n: int = 1) -> list[Config]:
        """Return proposals that fail at once, so that nothing is learned from them."""
        found = []
        for _ in range(n):
            number, config = self.record.ask()
            self.record.finish(number, "failed")
            found.append(config)
        return found


def test_vectors_of_points() -> None:
    vectors = Vectors(space_of(TWO_VARIANTS))
    side = math.sqrt(0.5)
    points: list[dict[str, Any]] = [
        {"model.name": "gmf", "training.learning_rate": 1e-3, "training.l2": 0.1},
        {
            "model.name": "mlp",
            "model.n_layers": 1,
            "training.learning_rate": 1e-5,  # below the range
            "training.l2": 0.025,
        },
    ]
    expected = [
        # gmf, mlp, layers, l2, rate
        [side, 0, 0.5, 1, 0.5],
        [0, side, 0, 0.25, 0],
    ]
    np.testing.assert_allclose(vectors.of(points), expected)


def test_a_path_has_one_axis_over_all_of_its_domains() -> None:
    vectors = Vectors(
        space_of(
            {
                "model.name": {"choices": ["gmf", "mlp", "neumf"]},
                "model.embedding_dim": [
                    {"low": 8, "high": 32, "log": True, "when": {"model.name": "mlp"}},
                    {"choices": [16], "when": {"model.name": "neumf"}},
                    {"low": 8, "high": 128, "log": True},
                ],
            }
        )
    )
    found = vectors.of([{"model.embedding_dim": dim} for dim in (8, 32, 128)])
    np.testing.assert_allclose(found[:, 3], [0, 0.5, 1])


def test_none_is_the_upper_end_of_a_range_unless_it_is_a_choice() -> None:
    patience: list[dict[str, Any]] = [{"low": 2, "high": 6}]
    (of_range,) = Vectors(space_of({"training.patience": patience})).of(
        [{"training.patience": None}]
    )
    assert of_range.tolist() == [1.0]
    name = {"choices": ["gmf", "mlp"]}
    patience.insert(0, {"choices": [None], "when": {"model.name": "mlp"}})
    vectors = Vectors(space_of({"model.name": name, "training.patience": patience}))
    (of_choice,) = vectors.of([{"model.name": "mlp", "training.patience": None}])
    assert of_choice[-1] == 0.5


def test_expected_improvement_is_the_mean_of_what_is_above_the_best() -> None:
    mean, deviation = torch.tensor([0.0, 1.0, -2.0]), torch.tensor([1.0, 0.5, 2.0])
    steps = torch.linspace(-12, 12, 200_001, dtype=torch.float64)
    for m, d, found in zip(
        mean, deviation, expected_improvement(mean, deviation, 0.3), strict=True
    ):
        density = (-((steps - m) / d).square() / 2).exp() / (d * math.sqrt(2 * math.pi))
        integral = torch.trapezoid((steps - 0.3).clamp(min=0) * density, steps)
        assert float(found) == pytest.approx(float(integral), rel=1e-4)


def test_the_process_is_the_normal_distribution_given_the_values() -> None:
    scales = Scales(
        torch.tensor([math.log(0.5)], dtype=torch.float64),
        torch.tensor(math.log(2.0), dtype=torch.float64),
        torch.tensor(math.log(0.1), dtype=torch.float64),
    )

    def covariance(a: float, b: float) -> float:
        r = math.sqrt(5) * abs(a - b) / 0.5
        return 2.0 * (1 + r + r * r / 3) * math.exp(-r)

    at, values, new = [0.1, 0.7], np.array([1.0, -1.0]), 0.3
    between = np.array([[covariance(a, b) for b in at] for a in at]) + 0.1 * np.eye(2)
    to_new = np.array([covariance(a, new) for a in at])
    inverse = np.linalg.inv(between)
    process = GaussianProcess(scales, _column(at), torch.from_numpy(values))
    mean, deviation = process.predict(_column([new]))
    assert float(mean[0]) == pytest.approx(to_new @ inverse @ values, rel=1e-5)
    assert float(deviation[0]) == pytest.approx(math.sqrt(2 - to_new @ inverse @ to_new), rel=1e-5)


def test_fitted_scales_find_the_dimension_that_matters() -> None:
    points = torch.rand(40, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    values = standardised(np.sin(7 * points[:, 0].numpy()))
    scales = Scales.prior(2)
    for _ in range(6):
        scales = scales.fitted(points, values)
    first, second = scales.length.exp().tolist()
    assert 2 * first < second
    assert scales.noise.exp() < 0.05


def _column(numbers: list[float]) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)[:, None]


def test_the_worst_values_do_not_set_the_scale() -> None:
    found = standardised(np.array([5.0, 4.0, 3.0, -1000.0]))
    # The median is 3.5, so that the lowest value counts as 5 - 3 * 1.5 = .5.
    raised = np.array([5.0, 4.0, 3.0, 0.5])
    # A quarter of the way from .5 to 3, 4 and 5 is three quarters from .5 to 3.
    np.testing.assert_allclose(found, (raised - 2.375) / raised.std())
    assert standardised(np.array([1.0, 1.0])).tolist() == [0.0, 0.0]


def test_candidates_are_points_of_the_space_and_half_are_near_good_ones() -> None:
    space = space_of(TWO_VARIANTS)
    good: dict[str, Any] = {
        "model.name": "gmf",
        "training.learning_rate": 1e-3,
        "training.l2": 0.05,
    }
    found = candidates(space, [good], np.random.default_rng(0))
    assert all(space.point(replace_values(Config(), point)) == point for point in found)
    rates = np.array([point["training.learning_rate"] for point in found], dtype=float)
    # A tenth of the drawn ones. Of the near ones two fifths, which keep it, and of the others nine
    # tenths, two fifths and a sixth by the scales of their changes.
    assert 130 < np.sum(np.abs(np.log10(rates) + 3) < 0.1) < 190
    kept = sum(point["training.l2"] == 0.05 for point in found)
    assert 40 < kept < 120  # two fifths of 200
    # mlp among the near ones is a change of the choice, in half of a tenth of them.
    assert sum(point["model.name"] == "mlp" for point in found[200:]) < 30
    assert {1, 2, 3} == {point["model.n_layers"] for point in found if "model.n_layers" in point}


def test_a_change_stays_in_the_range_and_a_whole_number_whole() -> None:
    space = space_of({"model.embedding_dim": {"low": 8, "high": 64, "log": True}})
    (domain,) = space.domains
    rng = np.random.default_rng(0)
    found = {change(domain, 60, 0.25, rng) for _ in range(300)}
    assert max(found) == 64  # type: ignore[type-var]
    assert min(found) >= 8  # type: ignore[operator, type-var]
    assert all(isinstance(value, int) for value in found)


def test_what_a_pruned_and_a_running_trial_are_expected_to_reach() -> None:
    search = Search(RATE)
    rates = iter(np.geomspace(1e-4, 1e-2, 7))

    def point() -> dict[str, Any]:
        return {"training__learning_rate": float(next(rates))}

    # From the second of four epochs on they gain .2, .0 and .1; the median is .1.
    search.run(0.1, 0.2, 0.4, 0.3, **point())
    search.run(0.3, 0.5, 0.4, 0.3, **point())
    search.run(0.1, 0.1, 0.1, 0.2, **point())
    pruned = search.run(0.4, 0.3, state="pruned", **point())
    diverged = search.run(0.4, state="diverged", **point())
    failed = search.run(0.9, state="failed", **point())
    silent = search.begin(**point())
    started, _ = search.record.ask()
    known = observe(search.record, without=started)
    expected = {0: 0.4, 1: 0.5, 2: 0.2, pruned: 0.5}
    assert known.values == pytest.approx(expected)
    assert (known.diverged, known.silent) == ((diverged,), (silent,))
    assert set(known.points) == {*expected, diverged, silent}
    assert failed not in known.points
    search.record.report(silent, 1, 0.3, {})
    # From the first epoch on the complete ones gain .3, .2 and .1.
    assert observe(search.record, without=started).values[silent] == pytest.approx(0.5)


def test_where_samples_are_ranked_values_on_all_users_count_and_the_others_are_moved() -> None:
    search = Search(RATE)
    rates = iter(np.geomspace(1e-4, 1e-2, 4))

    def run(value: float, on_all_users: float | None, state: str = "complete") -> int:
        number = search.begin(training__learning_rate=float(next(rates)))
        search.record.report(number, 1, value, {})
        if on_all_users is not None:
            search.record.store_on_all_users(number, OnAllUsers(on_all_users, 0.01, 1))
        search.record.finish(number, state)
        return number

    # All users are lower by .1, .05 and .2; the median is .1.
    for value, on_all_users in ((0.5, 0.4), (0.45, 0.4), (0.4, 0.2)):
        run(value, on_all_users)
    pruned = run(0.3, None, "pruned")
    expected = {0: 0.4, 1: 0.4, 2: 0.2, pruned: 0.2}
    assert observe(search.record, without=99).values == pytest.approx(expected)


def test_a_trial_of_fewer_epochs_is_compared_at_its_share() -> None:
    search = Search(RATE)
    search.run(0.1, 0.2, 0.4, 0.7, training__learning_rate=1e-3)
    search.study.enqueue_trial({"training.learning_rate": 1e-2})
    number, _ = search.record.ask(lambda _: 2)  # two epochs in place of four
    search.record.report(number, 1, 0.3, {})
    # After half of its epochs the other trial had .2, and it gained .5 from there.
    assert observe(search.record, without=99).values[number] == pytest.approx(0.3 + 0.5)


def test_proposals_approach_the_optimum() -> None:
    search = Search(RATE)

    def value(rate: float) -> float:
        return -((math.log10(rate) + 2.6) ** 2)

    rates = []
    for _ in range(20):
        number, config = search.record.ask()
        rates.append(config.training.learning_rate)
        search.record.report(number, 1, value(rates[-1]), {})
        search.record.finish(number, "complete")
    assert max(map(value, rates)) > -(0.03**2)
    # After the first ones, proposals are a hundredth of the range, two decades, from all others.
    apart = [abs(math.log10(a / b)) for n, a in enumerate(rates) for b in rates[:n] if n >= 4]
    assert min(apart) >= 0.02
    # Most of the later ones are near it, which is chance for one in four.
    assert sum(abs(math.log10(rate) + 2.6) < 0.25 for rate in rates[10:]) >= 5


def test_concurrent_proposals_differ() -> None:
    search = Search(RATE)
    for rate in (1e-4, 1e-3, 1e-2):
        search.run(-abs(math.log10(rate) + 2.5), training__learning_rate=rate)
    rates = [math.log10(search.record.ask()[1].training.learning_rate) for _ in range(3)]
    gaps = [abs(a - b) for i, a in enumerate(rates) for b in rates[:i]]
    assert min(gaps) > 0.02


VARIANT_AND_RATE: dict[str, Any] = {"model.name": {"choices": ["gmf", "mlp"]}, **RATE}


def proposed_variants(seconds: float, lead: float) -> list[str]:
    """Return the variants of proposals after mlp, whose epochs take so long, had so much more."""
    search = Search(VARIANT_AND_RATE, mlp=seconds)
    for rate in (1e-4, 1e-3):
        value = math.log10(rate)
        search.run(value, training__learning_rate=rate, model__name="gmf")
        search.run(value + lead, training__learning_rate=rate, model__name="mlp")
    return [config.model.name for config in search.propose(8)]


def test_of_equal_promises_the_cheap_one_is_proposed() -> None:
    assert set(proposed_variants(1.0, 0.0)) == {"gmf", "mlp"}
    assert set(proposed_variants(20.0, 0.0)) == {"gmf"}
    assert set(proposed_variants(0.05, 0.0)) == {"mlp"}


def test_a_dear_variant_that_wins_by_far_is_searched() -> None:
    assert set(proposed_variants(3.0, 2.0)) == {"mlp"}
    assert set(proposed_variants(6.0, 0.7)) == {"mlp"}  # per second, gmf would promise more


def test_nothing_is_proposed_next_to_a_trial_that_diverged() -> None:
    search = Search(RATE)
    # The value grows with the rate, and at the greatest rate the loss was no longer a number.
    for rate in (1e-4, 3e-4, 1e-3):
        search.run(math.log10(rate), training__learning_rate=rate)
    assert max(config.training.learning_rate for config in search.propose(5)) > 10**-2.6
    search.run(state="diverged", training__learning_rate=3e-3)
    # sqrt(1e-3 * 3e-3) is as near to the one as to the other.
    assert max(config.training.learning_rate for config in search.propose(5)) <= 3e-6**0.5
