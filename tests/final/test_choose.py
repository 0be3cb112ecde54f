from pathlib import Path

import pytest

from recsys.config.schema import Config, replace_values
from recsys.errors import InputError
from recsys.final.choose import Choice, choose_best, choose_candidates, choose_trial
from recsys.search.record.origin import StudyOrigin
from recsys.search.record.running_trial import trial_seed
from recsys.search.record.study_folder import StudyFolder
from recsys.search.space.space_file import parse_space

SPACE = parse_space({"parameters": {"model.embedding_dim": {"low": 8, "high": 64}}}, "")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a study `s` of four trials.

    The best that may be chosen is the second, at its second epoch. The last one never reported.
    """
    config = replace_values(
        Config(), {"study.seed": 3, "training.max_epochs": 5, "data.split": "random"}
    )
    study = StudyFolder.find(tmp_path, "s")
    study.create(config, SPACE, StudyOrigin())
    record = study.resume(config, SPACE)
    for epochs, state in (
        ([0.3, 0.2], "complete"),
        ([0.1, 0.5, 0.4], "pruned"),
        ([0.9], "diverged"),
        ([], None),
    ):
        number, _ = record.ask()
        for epoch, value in enumerate(epochs, start=1):
            record.report(number, epoch, value, {})
        if state:
            record.finish(number, state)
    return tmp_path


def test_the_best(folder: Path) -> None:
    chosen = choose_best(folder, "s")
    assert (chosen.name, chosen.study, chosen.n_epochs, chosen.seed) == (
        "s",
        "s",
        2,
        trial_seed(3, 1),
    )
    # The value at the path of the space is the trial's, all others are the study's.
    assert chosen.config.model.embedding_dim == _dim(folder, 1)
    assert (chosen.config.training.max_epochs, chosen.config.data.split) == (5, "random")


def test_a_trial(folder: Path) -> None:
    chosen = choose_trial(folder, "s/0")
    assert isinstance(chosen, Choice)
    assert (chosen.name, chosen.study, chosen.n_epochs, chosen.seed) == (
        "s-0",
        "s",
        1,
        trial_seed(3, 0),
    )
    assert chosen.config.model.embedding_dim == _dim(folder, 0) == 16


def _dim(folder: Path, number: int) -> int:
    record, _ = StudyFolder.find(folder, "s").read()
    return int(record.summaries()[number].params["model.embedding_dim"])


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (
            "s/2",
            r"^trial: must be a trial of s that may be chosen, but got one that is diverged\. "
            r"There are 4 trials\.",
        ),
        ("s/3", r"but got one that is unfinished"),
        ("s/4", r"but got no such trial\. There are 4 trials\."),
        ("s", r"^trial: must be STUDY/TRIAL, but got 's'\. Write it as s/0\."),
        ("s/", r"^trial: must be STUDY/TRIAL, but got 's/'\. Write it as s/0\."),
        ("s/-1", r"^trial: must be STUDY/TRIAL, but got 's/-1'\. Write it as s/0\."),
        ("s/one", r"^trial: must be STUDY/TRIAL, but got 's/one'\. Write it as s/0\."),
        ("../s/0", r"^trial: must be at most 100 letters"),
    ],
)
def test_anything_else_is_refused(folder: Path, path: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        choose_trial(folder, path)


def test_a_study_without_a_value_has_no_best_trial(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="must be a study, but got no record of one"):
        choose_best(tmp_path, "s")
    study = StudyFolder.find(tmp_path, "s")
    study.create(Config(), SPACE, StudyOrigin())
    record = study.resume(Config(), SPACE)
    record.ask()
    with pytest.raises(
        ValueError,
        match=r"^study: must be a study with a finished epoch, but got s, which has none\. Search",
    ):
        choose_best(tmp_path, "s")


def study_of(tmp_path: Path, trials: list[tuple[str, float]]) -> None:
    """Create a study `v` with a finished trial for each model and value."""
    warm_start = [
        {"model.name": model, "model.embedding_dim": 8 + number}
        for number, (model, _) in enumerate(trials)
    ]
    tree = {
        "parameters": {
            "model.name": {"choices": ["neumf", "gmf", "mlp"]},
            "model.embedding_dim": {"low": 8, "high": 64},
        },
        "warm_start": warm_start,
    }
    space, config = parse_space(tree, ""), replace_values(Config(), {"training.max_epochs": 5})
    study = StudyFolder.find(tmp_path, "v")
    study.create(config, space, StudyOrigin())
    record = study.resume(config, space)
    for model, value in trials:
        number, asked = record.ask()
        assert asked.model.name == model
        record.report(number, 1, 0.0, {"train_seconds": 1.0})
        record.report(number, 2, value, {"train_seconds": 5.0})
        record.finish(number, "complete")


def test_candidates_are_the_best_but_no_third_of_a_variant_comes_before_two_of_another(
    tmp_path: Path,
) -> None:
    values = [("neumf", 0.1), ("gmf", 0.9), ("gmf", 0.7), ("gmf", 0.8), ("mlp", 0.6), ("gmf", 0.5)]
    study_of(tmp_path, values)
    # By value 1, 3, 2, 4, 5, 0. Trials 2 and 5 are the third and the fourth gmf.
    found = choose_candidates(tmp_path, "v", 10)
    assert [choice.trial for choice in found] == [1, 3, 4, 0, 2, 5]
    assert [choice.trial for choice in choose_candidates(tmp_path, "v", 3)] == [1, 3, 4]
    third = found[2]
    assert (third.name, third.config.model.name) == ("v-4", "mlp")
    assert (third.n_epochs, third.seed) == (2, trial_seed(0, 4))
    assert third.seconds == 10.0  # two epochs of 5 seconds, the time of the best one


def test_one_trial_makes_no_ensemble(tmp_path: Path) -> None:
    study_of(tmp_path, [("neumf", 0.1)])
    message = (
        r"^study: must have at least 2 trials with a finished epoch for an ensemble, but got v, "
        r"which has 1\. Search further\.$"
    )
    with pytest.raises(InputError, match=message):
        choose_candidates(tmp_path, "v", 8)
