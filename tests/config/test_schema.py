import json
from typing import Any

import pytest
from pydantic import ValidationError

from recsys.config.schema import (
    Config,
    config_paths,
    get_value,
    replace_values,
    set_value,
)
from recsys.config.values import parse_duration

DEFAULTS: dict[str, object] = {
    "data.source": "ml-latest-small",
    "data.files": None,
    "data.columns": None,
    "data.positive_threshold": 4.0,
    "data.low_ratings": "negative",
    "data.min_user_interactions": 1,
    "data.min_item_interactions": 1,
    "data.split": "leave_one_out",
    "data.test_fraction": 0.2,
    "data.validation_fraction": 0.1,
    "data.split_seed": 0,
    "data.n_negatives": 4,
    "model.name": "neumf",
    "model.embedding_dim": 16,
    "model.n_layers": 3,
    "model.hidden_dim": 256,
    "model.bottleneck": "none",
    "model.dropout": 0.0,
    "model.noise_steps": 5,
    "model.noise_scale": 0.01,
    "model.n_levels": 4,
    "model.n_codes": 64,
    "model.commitment_weight": 0.25,
    "model.reconstruction_weight": 0.1,
    "model.bias": True,
    "model.init_std": 0.01,
    "model.similarity": "dot",
    "training.loss": "bce",
    "training.learning_rate": 1e-3,
    "training.learning_rate_decay": None,
    "training.l2": 0.0,
    "training.temperature": 0.1,
    "training.kl_weight": 0.2,
    "training.top_k_weight": None,
    "training.batch_size": 2048,
    "training.n_negatives": 4,
    "training.negative_sampling": "uniform",
    "training.popularity_alpha": 0.75,
    "training.resample_negatives": True,
    "training.balance": False,
    "training.max_epochs": 20,
    "training.patience": "auto",
    "training.recency_half_life": None,
    "training.recency_floor": 0.1,
    "evaluation.k": (10,),
    "evaluation.protocol": "auto",
    "evaluation.n_candidates": 99,
    "evaluation.max_users": "auto",
    "evaluation.every": "auto",
    "resources.cpu": 1.0,
    "resources.gpu": 0.0,
    "resources.custom": {},
    "resources.max_failures": 3,
    "resources.preprocess_cpus": None,
    "study.n_trials": None,
    "study.time_budget": None,
    "study.seed": 0,
    "study.metric": "ndcg",
    "study.sampler": "gp",
    "study.max_concurrent": None,
    "study.keep_checkpoints": 3,
    "study.pruner": "asha",
    "study.grace_period": None,
    "study.reduction_factor": 3,
    "study.storage": None,
    "tracking.uri": None,
    "tracking.experiment": "recsys",
    "tracking.required": True,
    "cluster.address": None,
}


def test_the_paths_and_their_defaults() -> None:
    assert {path: get_value(Config(), path) for path in config_paths()} == DEFAULTS
    assert config_paths() == tuple(DEFAULTS)


def test_every_setting_says_what_it_means() -> None:
    for section, field in Config.model_fields.items():
        fields = type(getattr(Config(), section)).model_fields
        assert field.annotation
        assert [name for name, setting in fields.items() if not setting.description] == []


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90.0),
        ("10m", 600.0),
        ("1h30m", 5400.0),
        ("2d", 172800.0),
        ("1.5h", 5400.0),
        ("0.5s", 0.5),
    ],
)
def test_durations_are_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds
    assert replace_values(Config(), {"study.time_budget": text}).study.time_budget == seconds


def test_a_number_is_a_duration_in_seconds() -> None:
    assert replace_values(Config(), {"study.time_budget": 45}).study.time_budget == 45.0


@pytest.mark.parametrize(
    "text", ["", "10", "10 m", "10x", "m", "-5s", "1h30", "1h 30m", "h1", "10m!"]
)
def test_other_texts_are_no_durations(text: str) -> None:
    with pytest.raises(
        ValueError,
        match=(
            r"must be a duration, but got .* Write it as 90s, 10m, 1h30m or a number of seconds\."
        ),
    ):
        parse_duration(text)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("training.batch_size", "512"),
        ("training.batch_size", 512.0),
        ("training.batch_size", True),
        ("training.learning_rate", "0.1"),
        ("training.learning_rate", True),
        ("training.learning_rate", float("nan")),
        ("training.learning_rate", float("inf")),
        ("model.bias", 1),
        ("model.bias", "true"),
        ("data.source", 1),
        ("model.name", "NeuMF"),
        ("evaluation.k", ["10"]),
        ("evaluation.k", [10.0]),
        ("evaluation.k", True),
        ("evaluation.k", []),
    ],
)
def test_nothing_is_converted(path: str, value: object) -> None:
    with pytest.raises(ValidationError):
        replace_values(Config(), {path: value})


def test_a_whole_number_is_a_number() -> None:
    rate = replace_values(Config(), {"training.learning_rate": 1}).training.learning_rate
    assert rate == 1.0
    assert isinstance(rate, float)


@pytest.mark.parametrize(
    ("path", "refused", "accepted"),
    [
        ("data.test_fraction", 0, 0.5),
        ("data.validation_fraction", 1, 0.99),
        ("data.split_seed", -1, 0),
        ("model.dropout", 1, 0),
        ("model.init_std", 0, 1e-9),
        ("training.l2", -0.1, 0),
        ("training.patience", 0, 1),
        ("evaluation.k", [10, 0], [10, 1]),
        ("resources.cpu", 0, 0.5),
        ("resources.gpu", -1, 0.5),
        ("resources.custom", {"big": 0}, {"big": 0.5, "zone": "a"}),
        ("resources.custom", {"GPU": 1}, {"accelerator_type:A100": 0.001}),
        ("resources.max_failures", -1, 0),
        ("resources.preprocess_cpus", 0, 1),
        ("study.reduction_factor", 1, 2),
        ("study.seed", 2**32, 2**32 - 1),  # the range of the numpy generators in Optuna's samplers
        ("study.time_budget", 0, 1),
        ("tracking.experiment", "", "x"),
    ],
)
def test_bounds(path: str, refused: object, accepted: object) -> None:
    replace_values(Config(), {path: accepted})
    with pytest.raises(ValidationError):
        replace_values(Config(), {path: refused})


def test_one_cutoff_is_a_list_of_one() -> None:
    config = replace_values(Config(), {"evaluation.k": 5, "study.metric": "recall"})
    assert config.evaluation.k == (5,)
    assert config.metric_name == "val_recall_at_5"


def test_the_search_maximises_at_the_first_cutoff() -> None:
    assert replace_values(Config(), {"evaluation.k": [20, 10]}).metric_name == "val_ndcg_at_20"


def test_a_config_does_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Config().model.embedding_dim = 8
    with pytest.raises(ValidationError, match="frozen"):
        Config().model = Config().model


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"training.resample_negatives": False, "training.n_negatives": 5},
            "training.n_negatives: must be at most data.n_negatives, 4, without "
            "training.resample_negatives, but got 5.",
        ),
        (
            {"training.resample_negatives": False, "training.negative_sampling": "popularity"},
            "training.negative_sampling: must be uniform without training.resample_negatives, but "
            "got popularity.",
        ),
        (
            {"evaluation.protocol": "sampled", "evaluation.k": [10, 101]},
            "evaluation.k: must be at most evaluation.n_candidates + 1, 100, but got 101.",
        ),
        (
            {"model.name": "mlp", "model.n_layers": 0},
            "model.n_layers: must be at least 1 for the model mlp, but got 0.",
        ),
        (
            {"model.name": "autoencoder", "training.loss": "softmax"},
            "training.negative_sampling: must be all for a model that reads users' histories, "
            "autoencoder, but got uniform.",
        ),
        (
            {"model.similarity": "cosine", "training.loss": "softmax"},
            "model.similarity: must be dot for the model neumf, but got cosine. "
            "Set model.name to inner_product or gmf or autoencoder.",
        ),
        (
            {"model.name": "rqvae", "training.loss": "squared"},
            "training.loss: must not be squared for the model rqvae, but got squared. "
            "Set model.name to inner_product.",
        ),
        (
            {"model.similarity": "cosine", "model.name": "rqvae", "training.loss": "softmax"},
            "model.similarity: must be dot for the model rqvae, but got cosine. "
            "Set model.name to inner_product or gmf or autoencoder.",
        ),
        (
            {"model.similarity": "cosine", "model.name": "gmf"},
            "model.similarity: must be dot with the loss bce, but got cosine. Set training.loss to "
            "softmax.",
        ),
        (
            {"training.top_k_weight": 1.0},
            "training.top_k_weight: must be none with training.negative_sampling: uniform, but got "
            "1.0. Set training.negative_sampling to all.",
        ),
    ],
)
def test_settings_that_exclude_each_other(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        replace_values(Config(), values)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "values",
    [
        {"training.resample_negatives": False, "training.n_negatives": 4},
        {"training.resample_negatives": False, "training.n_negatives": 5, "data.n_negatives": 5},
        {"training.n_negatives": 5, "training.negative_sampling": "popularity"},
        {"evaluation.protocol": "sampled", "evaluation.k": [10, 100]},
        {"evaluation.k": [101]},
        {
            "model.name": "autoencoder",
            "model.n_layers": 0,
            "model.similarity": "cosine",
            "training.loss": "softmax",
            "training.negative_sampling": "all",
            "training.top_k_weight": 1.0,
        },
    ],
)
def test_settings_that_agree(values: dict[str, object]) -> None:
    config = replace_values(Config(), values)
    assert {path: get_value(config, path) for path in values if path != "evaluation.k"} == {
        path: value for path, value in values.items() if path != "evaluation.k"
    }


def test_replacing_leaves_the_rest_and_the_original() -> None:
    base = replace_values(
        Config(), {"model.name": "gmf", "data.files": {"train": "a", "test": "b"}}
    )
    changed = replace_values(base, {"model.embedding_dim": 8})
    assert (changed.model.name, changed.model.embedding_dim, base.model.embedding_dim) == (
        "gmf",
        8,
        16,
    )
    assert changed.data.files == base.data.files


def test_an_unknown_path_is_refused() -> None:
    with pytest.raises(ValidationError, match="extra_forbidden"):
        replace_values(Config(), {"model.embeding_dim": 8})


def test_a_config_survives_json() -> None:
    # A trial's config is sent to its worker as JSON.
    config = replace_values(
        Config(), {"evaluation.k": [5, 10], "study.time_budget": "10m", "data.columns": {"user": 0}}
    )
    assert Config.model_validate_json(config.model_dump_json()) == config
    assert json.loads(config.model_dump_json())["evaluation"]["k"] == [5, 10]


def test_set_value_adds_missing_levels_and_copies_shared_ones() -> None:
    shared = {"name": "gmf"}
    tree: dict[str, Any] = {"model": shared}
    set_value(tree, "model.embedding_dim", 8)
    set_value(tree, "data.columns.user", "who")
    assert tree == {
        "model": {"name": "gmf", "embedding_dim": 8},
        "data": {"columns": {"user": "who"}},
    }
    assert shared == {"name": "gmf"}


def test_a_time_budget_without_a_number_of_trials_leaves_them_open() -> None:
    assert Config().study.trial_limit == 30
    assert replace_values(Config(), {"study.time_budget": "10m"}).study.trial_limit is None
    assert (
        replace_values(
            Config(), {"study.time_budget": "10m", "study.n_trials": 30}
        ).study.trial_limit
        == 30
    )
