import re
from dataclasses import replace
from pathlib import Path

import optuna
import pytest

from recsys.config.schema import Config, config_paths, get_value, replace_values
from recsys.errors import InputError
from recsys.search.record.origin import StudyOrigin
from recsys.search.record.running_trial import EpochPlan, trial_seed
from recsys.search.record.study_folder import StudyFolder, create_optuna_study
from recsys.search.record.study_record import StudyRecord
from recsys.search.record.summaries import (
    OnAllUsers,
    TrialSummary,
    best_trial,
    count_states,
    ranked,
)
from recsys.search.space.space_file import parse_space, read_space
from tests.small_search import open_optuna, violated

SPACE = parse_space(
    {
        "parameters": {
            "training.learning_rate": {"low": 1e-3, "high": 1.0, "log": True},
            "model.embedding_dim": {"low": 8, "high": 64},
        }
    },
    "",
)
SEEDED = replace_values(Config(), {"study.seed": 5})


@pytest.fixture
def record(tmp_path: Path) -> StudyRecord:
    return StudyRecord(create_optuna_study(tmp_path, SEEDED, StudyOrigin()), SEEDED, SPACE)


def summary(
    number: int, state: str, value: float | None, on_all_users: float | None = None
) -> TrialSummary:
    return TrialSummary(
        number,
        state,
        epochs=1,
        value=value,
        standard_error=None,
        epoch=1,
        params={},
        metrics={},
        run_id=None,
        nodes={},
        on_all_users=None if on_all_users is None else OnAllUsers(on_all_users, 0.01, 1),
    )


def test_the_best_value_of_those_that_may_be_chosen() -> None:
    trials = [
        summary(0, "complete", 0.2),
        summary(1, "pruned", 0.3),
        summary(2, "unfinished", 0.3),
        summary(3, "failed", 0.9),
        summary(4, "diverged", 0.9),
        summary(5, "unfinished", None),
    ]
    assert best_trial(trials) == trials[1]
    assert best_trial([trials[0], trials[2]]) == trials[2]
    assert best_trial(trials[3:]) is None
    assert best_trial([replace(trials[0], value=0.0)]) is not None
    assert count_states(trials) == {
        "complete": 1,
        "pruned": 1,
        "failed": 1,
        "diverged": 1,
        "unfinished": 2,
    }


def test_trials_with_values_on_all_users_come_first() -> None:
    trials = [
        summary(0, "complete", 0.30, on_all_users=0.25),
        summary(1, "complete", 0.29, on_all_users=0.28),
        summary(2, "pruned", 0.28),
        summary(3, "complete", 0.27, on_all_users=0.26),
        summary(4, "failed", 0.9),
        summary(5, "unfinished", 0.31),
    ]
    assert [trial.number for trial in ranked(trials)] == [1, 3, 0, 5, 2, 4]
    assert [trial.best_known for trial in trials[1:3]] == [(0.28, 0.01), (0.28, None)]


def test_where_a_complete_trial_has_no_value_on_all_users_the_sample_decides() -> None:
    trials = [
        summary(0, "complete", 0.30),
        summary(1, "complete", 0.29, on_all_users=0.35),
        summary(2, "unfinished", 0.31),
    ]
    assert [trial.number for trial in ranked(trials)] == [2, 0, 1]


def test_a_value_on_all_users_counts_once_its_trial_has_ended(tmp_path: Path) -> None:
    study = create_optuna_study(tmp_path, Config(), StudyOrigin())
    record = StudyRecord(study, Config(), SPACE)
    number, _ = record.ask()
    record.report(number, 1, 0.5, {"val_ndcg_at_10": 0.5})
    record.report(number, 2, 0.4, {"val_ndcg_at_10": 0.4})
    # It was retried, and the second epoch was the best of this attempt.
    record.store_on_all_users(number, OnAllUsers(0.45, 0.02, epoch=2))
    assert record.summary(number).on_all_users is None
    record.finish(number, "complete")
    for reader in (record, StudyRecord(study, Config(), SPACE)):
        found = reader.summary(number)
        assert (found.on_all_users, found.epoch) == (OnAllUsers(0.45, 0.02, 2), 2)
        assert found.metrics == {
            "val_ndcg_at_10": 0.5,
            "val_ndcg_at_10_all_users": 0.45,
            "val_ndcg_at_10_all_users_se": 0.02,
        }


def test_the_nodes_of_a_trial(record: StudyRecord, tmp_path: Path) -> None:
    number, _ = record.ask()
    for epoch, node in enumerate(("a", "a", "b", "b", "a"), start=1):
        record.store_node(number, epoch, node)
        record.report(number, epoch, 0.1, {})
    record.store_node(number, 4, "c")  # a retry; the epoch's first node counts
    assert record.summaries()[0].nodes == {"1": "a", "3": "b", "5": "a"}
    again = StudyRecord(StudyFolder(tmp_path).optuna_study(), Config(), SPACE)
    again.resume()
    again.ask()
    again.store_node(number, 6, "a")
    assert again.summaries()[0].nodes == {"1": "a", "3": "b", "5": "a"}
    again.store_node(number, 7, "b")
    assert again.summaries()[0].nodes == {"1": "a", "3": "b", "5": "a", "7": "b"}


def test_the_summary_of_a_running_trial(record: StudyRecord, tmp_path: Path) -> None:
    number, config = record.ask()
    for epoch, value in enumerate((0.1, 0.4, 0.4, 0.3), start=1):
        assert record.report(number, epoch, value, {"train_loss": 1 / epoch})
    assert not record.report(number, 2, 0.9, {"train_loss": 0.0})
    (found,) = record.summaries()
    # Of two equal epochs the earlier one counts, with its metrics.
    assert (found.state, found.epochs, found.value, found.epoch) == ("unfinished", 4, 0.4, 2)
    assert found.metrics == {"train_loss": 0.5}
    assert record.config_of(number) == config
    record.attach_run(number, "run-7")
    assert record.run_id is None
    record.attach_run(None, "run-s")
    record.finish(number, "complete")
    assert not record.is_running(number)
    assert record.state_of(number) == "complete"
    # A reader that opens the record later finds the same.
    again = StudyRecord(StudyFolder(tmp_path).optuna_study(), Config(), SPACE)
    assert (
        again.summaries()
        == record.summaries()
        == [replace(found, state="complete", run_id="run-7")]
    )
    assert again.run_id == record.run_id == "run-s"
    assert open_optuna(tmp_path).trials[0].value == 0.4


@pytest.mark.parametrize(
    ("state", "in_optuna"),
    [("complete", "COMPLETE"), ("pruned", "PRUNED"), ("failed", "FAIL"), ("diverged", "PRUNED")],
)
def test_endings(record: StudyRecord, tmp_path: Path, state: str, in_optuna: str) -> None:
    number, _ = record.ask()
    record.report(number, 1, 0.5, {"train_loss": 1.0})
    record.finish(number, state)
    assert open_optuna(tmp_path).trials[0].state.name == in_optuna
    assert violated(tmp_path) == ({0} if state == "diverged" else set())
    assert [s.state for s in record.summaries()] == [state]
    assert [s.choosable for s in record.summaries()] == [state in ("complete", "pruned")]


def test_points_in_the_queue_are_no_trials_yet(record: StudyRecord) -> None:
    record.enqueue_first_points()
    assert record.summaries() == []
    record.ask()
    assert [s.number for s in record.summaries()] == [0]


def test_the_sampler_learns_to_avoid_divergence(record: StudyRecord) -> None:
    # A third of the range diverges after a first epoch, and values rise towards it: a sampler
    # that sees the values alone samples there.
    diverged = []
    for _ in range(60):
        number, config = record.ask()
        rate = config.training.learning_rate
        diverged.append(rate > 0.1)
        record.report(number, 1, rate, {"train_loss": 1.0})
        record.finish(number, "diverged" if diverged[-1] else "pruned")
    assert sum(diverged[:20]) >= 4
    # With seeds 0 to 4, 27 to 36 of these 40 diverge without the constraint, and 16 to 18 with it.
    assert sum(diverged[20:]) <= 21
    best = best_trial(record.summaries())
    assert best is not None
    assert 0.05 < best.params["training.learning_rate"] <= 0.1


def test_seeds_of_trials() -> None:
    # These must never change: a resumed or repeated trial draws the same numbers.
    assert [trial_seed(0, 0), trial_seed(0, 1), trial_seed(1, 0)] == [
        2968811710,
        3964924996,
        1835504127,
    ]


OF_HISTORIES = {"training.loss": "softmax", "training.negative_sampling": "all"}
NEEDED = {"autoencoder": OF_HISTORIES, "diffusion": OF_HISTORIES}
"""Values that a variant needs in place of the defaults, by the name of its space file."""


@pytest.mark.parametrize(
    "file",
    sorted((Path(__file__).parents[3] / "search_spaces").glob("*.yaml")),
    ids=lambda file: file.stem,
)
def test_the_default_config_follows_the_warm_starts_of_every_space_file(
    tmp_path: Path, file: Path
) -> None:
    space = read_space(file)
    record = StudyRecord(create_optuna_study(tmp_path, Config(), StudyOrigin()), Config(), space)
    record.enqueue_first_points()
    for warm_start in space.warm_start:
        _, config = record.ask()
        assert {path: get_value(config, path) for path in warm_start} == warm_start
    _, first = record.ask()
    name = "neumf" if file.stem == "ncf" else file.stem
    defaults = {path: get_value(Config(), path) for path in config_paths() if path != "model.name"}
    assert first.model.name == name
    assert {
        path: get_value(first, path)
        for path in defaults
        if get_value(first, path) != defaults[path]
    } == NEEDED.get(file.stem, {})


def test_a_base_config_that_the_user_chose_comes_before_the_warm_starts(tmp_path: Path) -> None:
    space = parse_space(
        {
            "parameters": {"model.embedding_dim": {"low": 8, "high": 64}},
            "warm_start": [{"model.embedding_dim": 32}],
        },
        "",
    )
    for name, values, expected in (
        ("a", {"model.embedding_dim": 24}, [24, 32]),
        ("b", {"model.dropout": 0.5}, [32, 16]),  # which is not searched
    ):
        (tmp_path / name).mkdir()
        config = replace_values(Config(), values)
        study = create_optuna_study(tmp_path / name, config, StudyOrigin())
        record = StudyRecord(study, config, space)
        record.enqueue_first_points()
        assert [record.ask()[1].model.embedding_dim for _ in range(2)] == expected


def test_planned_epochs_are_those_of_the_trial_also_once_it_is_resumed(
    record: StudyRecord, tmp_path: Path
) -> None:
    short, config = record.ask(lambda _: 5)
    whole, _ = record.ask(lambda _: 20)
    assert config.training.max_epochs == record.summary(short).params["training.max_epochs"] == 5
    assert "training.max_epochs" not in record.summary(whole).params
    record.report(short, 1, 0.5, {})
    resumed = StudyFolder(tmp_path).resume(SEEDED, SPACE)
    assert resumed.plans == record.plans == {short: EpochPlan(5, 20)}
    assert resumed.ask(lambda _: 2) == (short, config)
    assert resumed.ask(lambda _: 2)[1].training.max_epochs == 20
    assert resumed.ask(lambda _: 2)[1].training.max_epochs == 2


def test_the_plan_is_a_share_of_the_epochs_that_the_trial_proposes() -> None:
    space = parse_space({"parameters": {"training.max_epochs": {"low": 40, "high": 43}}}, "")
    record = StudyRecord(optuna.create_study(direction="maximize"), Config(), space)
    number, config = record.ask(lambda config: config.training.max_epochs // 4)
    proposed = record._trial(number).params["training.max_epochs"]
    assert config.training.max_epochs == 10
    assert record.plans == {number: EpochPlan(10, proposed)}


def test_a_skipped_proposal_is_no_trial(record: StudyRecord, tmp_path: Path) -> None:
    skipped, _ = record.ask()
    assert record.is_proposal(skipped)
    record.skip(skipped)
    kept, _ = record.ask()
    assert (record.n_running, record.n_finished) == (1, 0)
    assert [summary.number for summary in record.summaries()] == [kept]
    record.finish(kept, "pruned")
    resumed = StudyFolder(tmp_path).resume(SEEDED, SPACE)
    assert [summary.number for summary in resumed.summaries()] == [kept]
    assert resumed.n_finished == 1
    assert resumed.ask()[0] == 2


def test_a_skipped_first_point_or_unfinished_trial_runs_when_the_study_is_resumed(
    record: StudyRecord, tmp_path: Path
) -> None:
    record.enqueue_first_points()
    first, config = record.ask()
    assert not record.is_proposal(first)
    record.skip(first)
    assert record.n_running == 0
    assert record.ask()[0] != first
    resumed = StudyFolder(tmp_path).resume(SEEDED, SPACE)
    assert resumed.ask() == (first, config)
    unfinished, _ = resumed.ask()
    assert not resumed.is_proposal(unfinished)
    resumed.skip(unfinished)
    assert [summary.state for summary in resumed.summaries()] == ["unfinished"] * 2


def test_a_default_that_is_invalid_beside_a_choice_is_replaced_by_the_nearest_point(
    tmp_path: Path,
) -> None:
    # Of 4 fixed negatives at most 4 can be used; the config draws 9 and new ones each epoch.
    parameters = {
        "training.resample_negatives": {"choices": [False]},
        "training.n_negatives": {"low": 1, "high": 4},
    }
    config = replace_values(Config(), {"training.n_negatives": 9})
    record = StudyRecord(
        create_optuna_study(tmp_path, config, StudyOrigin()),
        config,
        parse_space({"parameters": parameters}, ""),
    )
    record.enqueue_first_points()
    _, first = record.ask()
    assert (first.training.resample_negatives, first.training.n_negatives) == (False, 4)


def test_no_such_study(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"but got no record of one\. Start one with python -m recsys\.tune\."
    ):
        StudyFolder(tmp_path / "a").optuna_study()
    # A process that is killed while it creates a study leaves a folder like the second one.
    for name in ("b", ".c.7-0f.tmp"):
        (tmp_path / name).mkdir()
        create_optuna_study(tmp_path / name, Config(), StudyOrigin())
    message = f"{tmp_path / 'a'}: must be a study, but got no record of one. Studies here are b."
    with pytest.raises(InputError, match=re.escape(message)):
        StudyFolder(tmp_path / "a").optuna_study()
    assert isinstance(StudyFolder(tmp_path / "b").optuna_study(), optuna.Study)


def test_an_interrupted_study_is_resumed(tmp_path: Path) -> None:
    config = replace_values(Config(), {"study.seed": 5})
    record = StudyRecord(
        create_optuna_study(tmp_path, config, StudyOrigin(n_segments=2)), config, SPACE
    )
    record.enqueue_first_points()
    (first, first_config), (second, second_config), (third, _) = (record.ask() for _ in range(3))
    for step, value in ((1, 0.1), (2, 0.3), (3, 0.2)):
        record.report(first, step, value, {"train_loss": float(step)})
        record.report(third, step, value + 0.5, {})
    record.finish(third, "complete")
    before = open_optuna(tmp_path).trials
    # The process ends here.
    resumed = StudyFolder(tmp_path).resume(config, SPACE)
    # ASHA's rungs have the values that were reported before.
    assert dict(resumed.values_at(3)) == {first: 0.2, third: 0.7}
    # Unfinished trials start again with their numbers and configs, before new ones.
    assert [resumed.ask() for _ in range(2)] == [(first, first_config), (second, second_config)]
    assert resumed.ask()[0] == 3
    assert not resumed.report(first, 3, 0.9, {})
    assert resumed.report(first, 4, 0.25, {"train_loss": 4.0})
    resumed.finish(first, "complete")
    # The best value of both processes, with its metrics.
    summary = resumed.summaries()[first]
    assert (summary.value, summary.epoch, summary.epochs, summary.metrics) == (
        0.3,
        1,
        2,
        {"train_loss": 2.0},
    )
    after = open_optuna(tmp_path).trials
    assert after[third] == before[third]
    assert after[first].params == before[first].params
    assert after[first].intermediate_values == {1: 0.1, 2: 0.3, 3: 0.2, 4: 0.25}
    assert after[first].value == 0.3


def test_a_trial_whose_config_was_half_stored_gets_the_rest_of_it(tmp_path: Path) -> None:
    config = replace_values(Config(), {"study.seed": 5})
    study = create_optuna_study(tmp_path, config, StudyOrigin())
    study.ask().suggest_int("model.embedding_dim", 8, 64)
    drawn = study.trials[0].params
    record = StudyFolder(tmp_path).resume(config, SPACE)
    _, resumed_config = record.ask()
    assert study.trials[0].params.keys() > drawn.keys()
    assert (
        study.trials[0].params["model.embedding_dim"]
        == drawn["model.embedding_dim"]
        == resumed_config.model.embedding_dim
    )


def test_a_trial_whose_divergence_was_half_stored_is_not_run_again(tmp_path: Path) -> None:
    study = create_optuna_study(tmp_path, Config(), StudyOrigin())
    study.ask().set_user_attr("diverged", True)
    record = StudyFolder(tmp_path).resume(Config(), SPACE)
    assert record.ask()[0] == 1
    assert record.summaries()[0].state == "diverged"


def test_a_proposal_whose_refusal_was_half_stored_is_not_run(tmp_path: Path) -> None:
    study = create_optuna_study(tmp_path, Config(), StudyOrigin())
    study.ask().set_user_attr("skipped", True)
    record = StudyFolder(tmp_path).resume(Config(), SPACE)
    assert record.ask()[0] == 1
    assert [summary.number for summary in record.summaries()] == [1]


def test_a_refused_resume_leaves_the_config(tmp_path: Path) -> None:
    study = StudyFolder.find(tmp_path, "s")
    study.create(Config(), SPACE, StudyOrigin())
    before = (study.path / "config.yaml").read_text()
    other = replace_values(Config(), {"study.storage": "postgresql://u@h/n"})
    with pytest.raises(InputError, match="must be left out"):
        study.resume(other, SPACE)
    assert (study.path / "config.yaml").read_text() == before


def test_a_warm_start_at_the_nearest_point_of_the_base_config_runs(tmp_path: Path) -> None:
    domain = {"low": 1e-4, "high": 1e-2, "log": True}
    tree = {
        "parameters": {"training.learning_rate": domain},
        "warm_start": [{"training.learning_rate": 1e-2}],
    }
    config = replace_values(Config(), {"training.learning_rate": 0.05})
    space = parse_space(tree, "")
    study = create_optuna_study(tmp_path, config, StudyOrigin())
    record = StudyRecord(study, config, space)
    record.enqueue_first_points()
    assert [record.ask()[1].training.learning_rate for _ in range(2)] == [0.05, 1e-2]


def test_metrics_stored_before_their_value_are_not_lost(
    record: StudyRecord, tmp_path: Path
) -> None:
    number, _ = record.ask()
    record.report(number, 1, 0.1, {"train_loss": 1.0})
    # The process ends while it writes the second epoch's value.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            optuna.trial.Trial, "report", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        with pytest.raises(KeyboardInterrupt):
            record.report(number, 2, 0.2, {"train_loss": 2.0})
    config = replace_values(Config(), {"study.seed": 5})
    resumed = StudyFolder(tmp_path).resume(config, SPACE)
    resumed.ask()
    assert resumed.report(number, 2, 0.2, {"train_loss": 2.0})
    assert (resumed.summaries()[number].epoch, resumed.summaries()[number].metrics) == (
        2,
        {"train_loss": 2.0},
    )
