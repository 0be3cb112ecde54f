"""Samplers by name, each on the record of a study."""

from pathlib import Path

import pytest

from recsys.config.schema import Config, replace_values
from recsys.search.costs.work import EpochSeconds
from recsys.search.record.origin import StudyOrigin
from recsys.search.record.study_folder import StudyFolder, create_optuna_study
from recsys.search.record.study_record import StudyRecord
from recsys.search.sampling.samplers import make_sampler
from recsys.search.space.search_space import SearchSpace
from recsys.search.space.space_file import parse_space
from tests.small_search import open_optuna

SPACE = parse_space(
    {
        "parameters": {
            "training.learning_rate": {"low": 1e-3, "high": 1.0, "log": True},
            "model.embedding_dim": {"low": 8, "high": 64},
        }
    },
    "",
)
WITH_OUTSIDE_VALUES = parse_space(
    {
        "parameters": {
            "model.name": {"choices": ["gmf", "mlp"]},
            "training.l2": {"low": 1e-6, "high": 0.1, "log": True},
            "training.patience": {"low": 2, "high": 5},
            "model.embedding_dim": {"low": 8, "high": 64},
        }
    },
    "",
)
all_samplers = pytest.mark.parametrize("sampler", ["gp", "tpe", "random", "qmc"])


class OneSecond:
    is_measured = True

    def predict(self, config: Config) -> EpochSeconds:
        return EpochSeconds(1.0, 0.0)


def create(folder: Path, config: Config, space: SearchSpace = SPACE) -> StudyRecord:
    record = StudyRecord(create_optuna_study(folder, config, StudyOrigin()), config, space)
    record.use(make_sampler(config, record, OneSecond()))
    return record


def resume(folder: Path, config: Config, space: SearchSpace = SPACE) -> StudyRecord:
    record = StudyFolder(folder).resume(config, space)
    record.use(make_sampler(config, record, OneSecond()))
    return record


def finish(record: StudyRecord, number: int) -> None:
    record.report(number, 1, 0.5, {})
    record.finish(number, "complete")


@all_samplers
def test_the_default_config_is_run_as_it_is(tmp_path: Path, sampler: str) -> None:
    config = replace_values(Config(), {"study.sampler": sampler, "training.patience": None})
    record = create(tmp_path, config, WITH_OUTSIDE_VALUES)
    record.enqueue_first_points()
    number, first = record.ask()
    # Without weight decay and patience, which are outside of the ranges. The model, which is none
    # of the choices, is replaced.
    assert first == record.config_of(number) == replace_values(config, {"model.name": "gmf"})
    expected = {
        "model.name": "gmf",
        "training.l2": 0.0,
        "training.patience": None,
        "model.embedding_dim": 16,
    }
    assert record.summary(number).params == expected
    # The sampler sees the nearest point, and still samples all parameters together.
    (found,) = open_optuna(tmp_path).trials
    assert found.params == {**expected, "training.l2": 1e-6, "training.patience": 5}
    record.report(number, 1, 0.5, {})
    again = resume(tmp_path, config, WITH_OUTSIDE_VALUES)
    assert again.ask() == (number, first)
    for _ in range(4):
        _, sampled = again.ask()
        assert 1e-6 <= sampled.training.l2 <= 0.1
        assert sampled.training.patience in range(2, 6)


@all_samplers
def test_the_seed_decides_what_is_sampled(tmp_path: Path, sampler: str) -> None:
    def sample(seed: int, folder: str) -> list[Config]:
        (tmp_path / folder).mkdir()
        config = replace_values(Config(), {"study.seed": seed, "study.sampler": sampler})
        record, found = create(tmp_path / folder, config), []
        for _ in range(5):
            number, proposed = record.ask()
            finish(record, number)
            found.append(proposed)
        return found

    first = sample(1, "a")
    assert [c.training for c in sample(1, "b")] == [c.training for c in first]
    assert [c.training for c in sample(2, "c")] != [c.training for c in first]


@all_samplers
def test_a_resumed_sampler_does_not_draw_the_same_again(tmp_path: Path, sampler: str) -> None:
    config = replace_values(Config(), {"study.sampler": sampler})
    record, first = create(tmp_path, config), []
    for _ in range(5):
        first.append(record.ask())
        finish(record, first[-1][0])
    resumed = resume(tmp_path, config)
    rates = [
        trial_config.training.learning_rate
        for _, trial_config in (*first, *(resumed.ask() for _ in range(3)))
    ]
    assert len(set(rates)) == 8


@all_samplers
def test_an_unfinished_trial_that_has_no_parameters_yet_is_sampled(
    tmp_path: Path, sampler: str
) -> None:
    config = replace_values(Config(), {"study.sampler": sampler})
    create_optuna_study(tmp_path, config, StudyOrigin()).ask()  # and the process is killed
    number, proposed = resume(tmp_path, config).ask()
    assert number == 0
    assert 1e-3 <= proposed.training.learning_rate <= 1
    assert 8 <= proposed.model.embedding_dim <= 64
