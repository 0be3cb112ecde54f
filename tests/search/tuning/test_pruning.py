"""Decisions of the pruners on the record of a study, by hand and by a plain reference."""

from collections.abc import Callable
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState

from recsys.config.components import PRUNERS
from recsys.config.schema import Config, replace_values
from recsys.search.record.study_record import StudyRecord
from recsys.search.space.space_file import parse_space
from recsys.search.tuning.pruning import make_pruner

SPACE = parse_space(
    {
        "parameters": {"model.embedding_dim": {"low": 8, "high": 64}},
        "warm_start": [{"model.embedding_dim": 32}],
    },
    "",
)


def study_of(n_segments: int = 1, /, **values: object) -> tuple[StudyRecord, Config, optuna.Study]:
    config = replace_values(
        Config(), {path.replace("__", "."): value for path, value in values.items()}
    )
    study = optuna.create_study(direction="maximize")
    study.set_user_attr("start", {"parts": n_segments})
    return StudyRecord(study, config, SPACE), config, study


def run(pruner_name: str, curves: list[list[float]], **values: object) -> list[int]:
    """Run trials one after another as the recorder does; return the number of steps of each."""
    record, config, _ = study_of(
        study__pruner=pruner_name, training__max_epochs=len(curves[0]), **values
    )
    pruner = make_pruner(record, config)
    n_steps = []
    for curve in curves:
        number, _ = record.ask()
        for step, value in enumerate(curve, start=1):
            record.report(number, step, value, {})
            if step == len(curve):
                record.finish(number, "complete")
            elif step in pruner.steps_of(number) and pruner.prunes(number, step):
                record.finish(number, "pruned")
                break
        n_steps.append(step)
    return n_steps


def planning(n_epochs: int) -> Callable[[Config], int]:
    return lambda _: n_epochs


def reference(
    reports: list[tuple[int, int, float]], rungs: set[int], factor: int, starts: set[int]
) -> list[bool]:
    """Return for each report (trial, step, value) whether it prunes its trial, by ASHA's rule."""
    pruned: list[bool] = []
    for position, (trial, step, value) in enumerate(reports):
        if step not in rungs:
            pruned.append(False)
            continue
        reached = {other: reported for other, at, reported in reports[: position + 1] if at == step}
        rank = sorted(reached.values(), reverse=True).index(value) + 1
        n_passing = len(reached) // factor
        survives = rank <= max(1, n_passing) or (n_passing == 0 and trial in starts)
        pruned.append(not survives)
    return pruned


@settings(max_examples=60)
@given(
    data=st.data(),
    factor=st.integers(2, 4),
    grace_period=st.sampled_from([1, 2, 0.5]),
    n_segments=st.sampled_from([1, 2]),
)
def test_asha_decides_as_its_rule_says(
    data: Any, factor: int, grace_period: float, n_segments: int
) -> None:
    values: dict[str, object] = {
        "study__reduction_factor": factor,
        "study__grace_period": grace_period,
        "training__max_epochs": 5,
    }
    record, config, _ = study_of(n_segments, **values)
    pruner = make_pruner(record, config)
    record.enqueue_first_points()
    numbers = [record.ask()[0] for _ in range(8)]
    alive, found = dict.fromkeys(numbers, 0), []
    reports: list[tuple[int, int, float]] = []
    while alive and len(reports) < 60:
        number = data.draw(st.sampled_from(sorted(alive)))
        alive[number] += 1
        value = data.draw(st.integers(0, 9)) / 10  # ties
        reports.append((number, alive[number], value))
        record.report(number, alive[number], value, {})
        found.append(
            alive[number] in pruner.steps_of(number) and pruner.prunes(number, alive[number])
        )
        if found[-1] or alive[number] == 5 * n_segments - 1:
            del alive[number]
    rungs = set(pruner.steps_of(numbers[0]))
    assert found == reference(reports, rungs, factor, {0, 1})


def test_asha_compares_a_trial_of_fewer_epochs_at_the_same_share_of_them() -> None:
    record, config, _ = study_of(study__grace_period=1, training__max_epochs=20)
    pruner = make_pruner(record, config)
    whole, half, single = (record.ask(planning(n_epochs))[0] for n_epochs in (20, 10, 1))
    # Rungs after 1, 3 and 9 of 20 epochs: after 0.5, 1.5 and 4.5 of 10, rounded up.
    assert pruner.steps_of(whole) == {1, 3, 9}
    assert pruner.steps_of(half) == {1, 2, 5}
    assert pruner.steps_of(single) == {1}
    for step, value in enumerate((0.5, 0.9, 0.6), start=1):
        record.report(whole, step, value, {})
    record.report(half, 1, 0.55, {})
    assert not pruner.prunes(half, 1)
    # Its second epoch counts with the third of the first trial.
    record.report(half, 2, 0.58, {})
    assert pruner.prunes(half, 2)
    assert not pruner.prunes(whole, 3)
    # The only epoch of the last trial counts at every rung: the best of 3 survives.
    record.report(single, 1, 0.7, {})
    assert not pruner.prunes(single, 1)
    assert pruner.prunes(whole, 3)


def test_rungs_of_a_trial_of_fewer_epochs_are_ranked() -> None:
    record, config, _ = study_of(
        study__grace_period=1, training__max_epochs=20, evaluation__every=3
    )
    pruner = make_pruner(record, config)
    whole, half, single = (record.ask(planning(n_epochs))[0] for n_epochs in (20, 10, 1))
    assert pruner.steps_of(whole) == {3, 9}
    # Epochs 3, 6 and 9 are ranked, and the last: 0.5 and 1.5 become 3, and 4.5 becomes 6.
    assert pruner.steps_of(half) == {3, 6}
    assert pruner.steps_of(single) == {1}


@pytest.mark.parametrize("time_budget", [None, 60.0])
def test_first_points_are_spared_among_few_trials_unless_time_is_limited(
    time_budget: float | None,
) -> None:
    record, config, _ = study_of(study__grace_period=1, study__time_budget=time_budget)
    record.enqueue_first_points()
    pruner = make_pruner(record, config)
    first, second = record.ask()[0], record.ask()[0]
    record.report(first, 1, 0.5, {})
    record.report(second, 1, 0.4, {})
    assert pruner.prunes(second, 1) == (time_budget is not None)


def test_the_mean_share_of_a_trial() -> None:
    # Of 20 epochs all trials train 1, a third 2 more, a ninth 6 more, and a 27th the last 11.
    for name, share in (("asha", (1 + 2 / 3 + 6 / 9 + 11 / 27) / 20), ("median", 1), ("none", 1)):
        record, config, _ = study_of(
            study__pruner=name, study__grace_period=1, training__max_epochs=20
        )
        assert make_pruner(record, config).mean_share == pytest.approx(share)


CURVES = [[0.1 * trial + 0.01 * epoch for epoch in range(9)] for trial in (5, 4, 6, 3, 7, 2, 8, 1)]


def test_none_prunes_no_trial() -> None:
    assert run("none", CURVES) == [9] * 8


def test_the_median_of_complete_trials_is_what_counts() -> None:
    # Optuna's rule: the first five finish. Then, from grace_period epochs on, a trial is pruned if
    # its best value so far is below the median of the complete trials' values at the step: 0.5, and
    # 0.55 once a sixth is complete, each plus 0.01 an epoch.
    assert run("median", CURVES, study__grace_period=3) == [9, 9, 9, 9, 9, 3, 9, 3]


def test_hyperband_prunes_by_brackets() -> None:
    n_steps = run("hyperband", CURVES * 4, study__grace_period=1)
    # Brackets start at 1, 3 and 9 epochs: rungs at 1 and 3; trials that survive run 9 epochs.
    assert set(n_steps) <= {1, 3, 9}
    assert {1, 9} <= set(n_steps)
    # The best trial is always in the best third of a rung.
    assert all(n_steps[trial] == 9 for trial in range(6, 32, 8))


def test_each_pruner_decides_within_grace_period_and_max_epochs_and_none_never() -> None:
    for name in PRUNERS:
        record, config, _ = study_of(
            2, study__pruner=name, study__grace_period=1.5, training__max_epochs=20
        )
        number, _ = record.ask()
        steps = make_pruner(record, config).steps_of(number)
        assert not any(step < 3 or step >= 40 for step in steps)
        assert bool(steps) == (name != "none")
        config = replace_values(config, {"evaluation.every": 3})
        number, _ = record.ask()
        for step in make_pruner(record, config).steps_of(number):
            assert -(-step // 2) % 3 == 0  # in a ranked epoch of two steps


@pytest.mark.parametrize("name", ["asha", "median", "hyperband"])
def test_a_pruner_uses_the_record_of_an_earlier_process(name: str) -> None:
    _, config, study = study_of(study__pruner=name, training__max_epochs=9)
    first = StudyRecord(study, config, SPACE)
    pruner = make_pruner(first, config)
    for _ in range(9):
        number, _ = first.ask()
        for step in range(1, 10):
            first.report(number, step, 0.9, {})
            if step in pruner.steps_of(number):
                pruner.prunes(number, step)
        first.finish(number, "complete")
    resumed = StudyRecord(study, config, SPACE)
    resumed.resume()
    pruner = make_pruner(resumed, config)
    pruned = []
    for _ in range(6):
        number, _ = resumed.ask()
        for step in (1, 2, 3):
            resumed.report(number, step, 0.1, {})
            if step in pruner.steps_of(number) and pruner.prunes(number, step):
                pruned.append(number)
                resumed.finish(number, "pruned")
                break
    assert pruned
    assert {study.trials[number].state for number in pruned} == {TrialState.PRUNED}
