"""From a search to recommendations on data that hold out whole users."""

from pathlib import Path
from typing import Any

import pytest

from recsys import evaluate, recommend, train, tune
from recsys.config.files import dump_yaml
from tests.commands.in_process import answer, run
from tests.small_search import SPACE

SPLIT = ["--set", "data.split=users", "--set", "data.validation_fraction=0.3"]
FOLDING_IN = {
    "parameters": {
        "model.name": {"choices": ["inner_product", "autoencoder"]},
        "training.loss": [
            {"choices": ["squared"], "when": {"model.name": "inner_product"}},
            {"choices": ["softmax"]},
        ],
        "training.negative_sampling": {"choices": ["all"], "when": {"training.loss": "softmax"}},
        "model.n_layers": {"low": 0, "high": 1, "when": {"model.name": "autoencoder"}},
        "model.embedding_dim": {"low": 4, "high": 16},
        "training.l2": {"low": 1e-2, "high": 1.0, "log": True},
    },
}


def write_space(tree: dict[str, Any], folder: Path) -> Path:
    (folder / "space.yaml").write_text(dump_yaml(tree))
    return folder / "space.yaml"


@pytest.fixture(scope="module")
def home(ratings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a search of five trials."""
    folder = tmp_path_factory.mktemp("home")
    space = write_space(FOLDING_IN, folder)
    flags = ["--name", "s", "--trials", 5, "--max-epochs", 4, "--set", "training.batch_size=128"]
    found = answer(tune.main, "--space", space, "--data", ratings, "--dir", folder, *SPLIT, *flags)
    assert found["best"]["value"] > 0.1
    return folder


def test_the_best_trial_is_trained_evaluated_and_served(home: Path, ratings: Path) -> None:
    trained = answer(train.main, "--best-of", "s", "--dir", home)
    assert set(trained["baselines"]) == {"popularity", "popularity_recent", "ease"}
    # The data have four tastes, which the given items tell and popularity does not.
    for found in (trained["test"], trained["baselines"]["ease"]):
        assert found["ndcg_at_10"] > trained["baselines"]["popularity"]["ndcg_at_10"]
    evaluated = answer(evaluate.main, "--model", "s", "--dir", home)
    assert evaluated["test"] == pytest.approx(trained["test"])
    everyone = answer(recommend.main, "--model", "s", "--dir", home, "--all-users", "-k", 5)
    assert set(everyone) == {str(user) for user in range(60)}
    rated = {tuple(line.split(",")[:2]) for line in ratings.read_text().splitlines()}
    assert not {(u, str(one["item_id"])) for u, items in everyone.items() for one in items} & rated
    of_file = answer(recommend.main, "--model", "s", "--dir", home, "--history", ratings, "-k", 5)
    assert set(of_file) == set(everyone)


def test_a_training_for_validation_knows_no_test_user(home: Path) -> None:
    values = answer(train.main, "--best-of", "s", "--validate", "--dir", home)
    assert 0 < values["validation"]["ndcg_at_10"] <= 1
    found = answer(recommend.main, "--model", "s-validate", "--dir", home, "--all-users")
    assert 40 <= len(found) < 60


def test_an_ensemble(home: Path) -> None:
    found = answer(train.main, "--best-of", "s", "--ensemble", 2, "--dir", home)
    assert found["test"]["ndcg_at_10"] > found["baselines"]["popularity"]["ndcg_at_10"]


def test_models_that_cannot_fold_in_users_are_refused(home: Path, ratings: Path) -> None:
    space = write_space(SPACE, home)
    flags = ["--data", ratings, "--dir", home, *SPLIT]
    code, _, errors = run(tune.main, "--space", space, "--name", "t", *flags, "--trials", 2)
    assert code == 2
    rule = "must fold in users for data.split: users, but got"
    assert f"error: search space: {rule} gmf with the loss bce and 2 more." in errors
    assert not (home / "studies" / "t").exists()
    (home / "config.yaml").write_text(dump_yaml({"model": {"name": "gmf"}}))
    code, _, errors = run(train.main, "--config", home / "config.yaml", *flags)
    assert code == 2
    assert f"error: model.name, training.loss: {rule} gmf with the loss bce." in errors
