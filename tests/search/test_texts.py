"""Lines that a search begins with."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from recsys.config.schema import Config, replace_values
from recsys.search import texts
from recsys.search.costs.work import EpochSeconds
from recsys.search.record.study_folder import StudyFolder
from recsys.search.space.search_space import SearchSpace
from recsys.search.space.space_file import parse_space
from recsys.search.texts import opening_text


@pytest.fixture(autouse=True)
def _expected(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each epoch train for 60 s, and a ranking take 10 s."""
    monkeypatch.setattr(texts, "expected_seconds", lambda *_: EpochSeconds(60.0, 10.0))


SPACE = parse_space({"parameters": {"model.embedding_dim": {"low": 8, "high": 64}}}, "")


def opening(
    values: dict[str, object],
    *,
    n_segments: int = 1,
    resume: bool = False,
    space: SearchSpace = SPACE,
) -> list[str]:
    plan = SimpleNamespace(
        study=StudyFolder.find(Path("out"), "big"),
        config=replace_values(Config(), {"evaluation.protocol": "full", **values}),
        space=space,
        processed=SimpleNamespace(
            manifest=SimpleNamespace(n_users=1_000, n_items=20, n_train=30_000_000)
        ),
        origin=SimpleNamespace(n_segments=n_segments),
        slots=SimpleNamespace(most=4),
        resume=resume,
    )
    return opening_text(cast(Any, plan)).splitlines()


def test_a_time_budget_and_segments() -> None:
    values = {"study.time_budget": "90m", "study.grace_period": 0.5, "training.max_epochs": 2}
    assert opening(values, n_segments=7) == [
        "Searching big: 1,000 users, 20 items, 30,000,000 positives to train on. "
        "It runs for 1:30:00 at most, 4 at a time; results in out/studies/big.",
        # Rungs are whole segments: 4 of 7, and 11 of 7.
        "First come the default config, then configs that the sampler proposes. A trial reports "
        "NDCG@10 (full) 7 times in each epoch, of at most 2; of those that reach epoch 0.571 or "
        "1.57, about one in 3 continues.",
        "On an idle core, the first value comes after about 10.0 s of training.",
    ]


def test_a_sample_of_users_after_some_epochs() -> None:
    values: dict[str, object] = {
        "evaluation.max_users": 4_000,
        "evaluation.every": 3,
        "training.patience": 5,
    }
    assert opening(values)[1].endswith(
        "A trial reports NDCG@10 (full) of 4,000 users after every 3 epochs, of at most 20, and "
        "ends after 5 without a better value; of those that reach epoch 6 or 12, about one in 3 "
        "continues."
    )
    assert "7 times in one of 3 epochs, of" in opening(values, n_segments=7)[1]
    # Two epochs that are not ranked, and one that is.
    assert " after about 3:10 of training." in opening(values)[2]
    assert len(opening({**values, "resources.gpu": 1})) == 2


def test_a_resumed_study_and_no_rungs() -> None:
    for path, value in (("study.pruner", "median"), ("training.max_epochs", 1)):
        first, last = opening(
            {"study.n_trials": 5, "study.time_budget": 60, path: value}, resume=True
        )
        assert first.startswith("Resuming big: ")
        assert "It runs 5 trials, for 1:00 at most, 4 at a time; " in first
        assert last.startswith("First come the unfinished trials, then configs that the sampler ")
        assert last.endswith(("(full) after each epoch, of at most 20.", "of at most 1."))


def test_a_config_of_the_user_comes_first_without_warm_starts_too() -> None:
    assert opening({"model.embedding_dim": 32})[1].startswith("First come your config, then ")


def test_a_warm_start_that_is_valid_only_with_values_of_the_space() -> None:
    parameters = {
        "model.name": {"choices": ["autoencoder"]},
        "training.loss": {"choices": ["softmax"]},
        "training.negative_sampling": {"choices": ["all"]},
    }
    space = parse_space(
        {"parameters": parameters, "warm_start": [{"model.name": "autoencoder"}]}, ""
    )
    assert " after about 1:10 of training." in opening({}, space=space)[2]
