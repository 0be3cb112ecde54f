from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from recsys.search.record.write_through import WriteThroughStorage


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Return a database with an earlier study, so that ids of trials are not their numbers."""
    url = f"sqlite:///{tmp_path / 'optuna.db'}"
    other = optuna.create_study(storage=url, study_name="other")
    for _ in range(3):
        other.ask()
    optuna.create_study(storage=url, study_name="study", direction="maximize").set_user_attr(
        "start", {"parts": 2}
    )
    return url


def open_here(url: str) -> optuna.Study:
    sampler = optuna.samplers.RandomSampler(seed=0)
    return optuna.load_study(
        study_name="study",
        storage=WriteThroughStorage(optuna.storages.get_storage(url), "study"),
        sampler=sampler,
    )


def content(study: optuna.Study) -> tuple[dict[str, Any], list[tuple[Any, ...]]]:
    """Return a study's content without ids and times."""

    def of(trial: FrozenTrial) -> tuple[Any, ...]:
        attributes = (trial.user_attrs, trial.system_attrs, trial.constraints)
        return (
            trial.number,
            trial.state,
            trial.values,
            trial.params,
            trial.distributions,
            trial.intermediate_values,
            attributes,
        )

    return study.user_attrs, [of(trial) for trial in study.trials]


def go_on(study: optuna.Study) -> None:
    """Add a trial of each state, an unfinished one and a queued one."""
    study.enqueue_trial({"d": 8}, user_attrs={"is_start": True})
    for state in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, None):
        trial = study.ask()
        trial.suggest_int("d", 4, 16, log=True)
        trial.suggest_categorical("name", ["gmf", "mlp"])
        trial.set_user_attr("metrics", {"val_ndcg_at_10": 0.25})
        trial.report(0.5, 1)
        trial.report(0.25, 2)
        if state is TrialState.PRUNED:
            trial.set_constraint("diverged", 1.0)
        if state is not None:
            study.tell(trial, 0.5 if state is TrialState.COMPLETE else None, state=state)
    study.enqueue_trial({"d": 12})
    study.set_user_attr("mlflow_run_id:0", "abc")


def test_the_cache_equals_the_database(url: str) -> None:
    study = open_here(url)
    go_on(study)
    cached, stored = content(study), content(optuna.load_study(study_name="study", storage=url))
    assert cached == stored
    states = [trial.state.name for trial in study.trials]
    assert states == ["COMPLETE", "PRUNED", "FAIL", "RUNNING", "WAITING"]
    assert cached[0] == {"start": {"parts": 2}, "mlflow_run_id:0": "abc"}
    assert study.trials[0].params["d"] == 8
    assert len(optuna.load_study(study_name="other", storage=url).trials) == 3


def test_an_interrupted_study_is_resumed(url: str) -> None:
    go_on(open_here(url))
    again = open_here(url)
    left = again.trials[3]
    assert left.intermediate_values == {1: 0.5, 2: 0.25}
    trial = optuna.trial.Trial(again, left._trial_id)
    trial.report(0.75, 3)
    again.tell(trial, 0.75)
    assert again.ask().number == 4  # the queued trial
    go_on(again)
    assert content(again) == content(optuna.load_study(study_name="study", storage=url))
    assert again.best_value == 0.75


def test_a_database_is_read_once(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    study = open_here(url)
    # Optuna reads all running trials with this method.
    monkeypatch.setattr(optuna.storages.RDBStorage, "_get_trials", None)
    go_on(study)
    assert len(study.trials) == 5


def test_a_failed_write_is_not_cached(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    study = open_here(url)
    trial = study.ask()

    def fail(*_: object, **_named: object) -> None:
        raise OSError("disk full")

    for method in ("set_trial_intermediate_value", "set_trial_user_attr", "set_trial_state_values"):
        monkeypatch.setattr(optuna.storages.RDBStorage, method, fail)
    for write in (
        lambda: trial.report(0.5, 1),
        lambda: trial.set_user_attr("nodes", {}),
        lambda: study.tell(trial, 0.5),
    ):
        with pytest.raises(OSError, match="disk full"):
            write()
    (found,) = study.trials
    assert (found.state, found.intermediate_values, found.user_attrs) == (
        TrialState.RUNNING,
        {},
        {},
    )


def test_an_attribute_is_kept_as_it_was_written(url: str) -> None:
    study = open_here(url)
    trial, nodes = study.ask(), {"1": "10.0.0.1"}
    trial.set_user_attr("nodes", nodes)
    nodes["5"] = "10.0.0.2"
    assert study.trials[0].user_attrs == {"nodes": {"1": "10.0.0.1"}}
