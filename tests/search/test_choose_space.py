import pytest

from recsys.config.schema import Config, replace_values
from recsys.config.variants import Variant
from recsys.data.manifest import Manifest
from recsys.data.resolve import require_fold_in
from recsys.errors import InputError
from recsys.search.choose_space import for_data, variants_of
from recsys.search.space.space_file import parse_space

TREE = {
    "parameters": {
        "training.l2": {"low": 1e-3, "high": 1.0, "log": True},
        "training.recency_half_life": {"low": 1.0, "high": 1000.0, "log": True},
    },
    "warm_start": [
        {"training.l2": 0.1, "training.recency_half_life": 3.0},
        {"training.l2": 0.1, "training.recency_half_life": 9.0},
        {"training.l2": 0.2, "training.recency_half_life": 9.0},
    ],
}
TIMED, TIMELESS = (Manifest.model_construct(has_times=value) for value in (True, False))


def test_a_search_needs_times_to_weigh_by_recency(capsys: pytest.CaptureFixture[str]) -> None:
    space = parse_space(TREE, "")
    assert for_data(space, Config(), TIMED) == space
    assert capsys.readouterr().err == ""
    left = for_data(space, Config(), TIMELESS)
    assert left.paths == ("training.l2",)
    assert left.warm_start == ({"training.l2": 0.1}, {"training.l2": 0.2})
    expected = "note: training.recency_half_life is not searched: the data have no times.\n"
    assert capsys.readouterr().err == expected
    assert for_data(left, Config(), TIMELESS) == left
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("half_life", "is_searched"), [(None, False), (3.0, True)])
def test_a_floor_is_searched_with_a_half_life(half_life: float | None, is_searched: bool) -> None:
    parameters = {
        "training.recency_floor": {"low": 0.01, "high": 1.0},
        "training.l2": {"low": 0.0, "high": 1.0},
    }
    config = replace_values(Config(), {"training.recency_half_life": half_life})
    space = for_data(parse_space({"parameters": parameters}, ""), config, TIMED)
    assert ("training.recency_floor" in space.paths) == is_searched


def test_a_space_of_a_floor_alone_is_refused_without_a_half_life() -> None:
    parameters = {"training.recency_floor": {"low": 0.01, "high": 1.0}}
    with pytest.raises(InputError, match=r"half_life is none, but got none\. Set or search it"):
        for_data(parse_space({"parameters": parameters}, ""), Config(), TIMED)


def test_a_space_of_recency_alone_is_refused_for_data_without_times() -> None:
    parameters = {"training.recency_half_life": {"low": 1.0, "high": 1000.0}}
    space = parse_space({"parameters": parameters}, "")
    with pytest.raises(InputError, match="an effect if the data have no times"):
        for_data(space, Config(), TIMELESS)


def test_the_default_config_counts_as_the_longest_half_life() -> None:
    space = parse_space(TREE, "")
    assert space.point(Config())["training.recency_half_life"] == 1000.0
    assert space.outside_values(Config())["training.recency_half_life"] is None


def test_the_variants_of_a_space() -> None:
    parameters = {
        "model.n_layers": {"low": 0, "high": 4},
        "model.name": [
            {"choices": ["autoencoder", "gmf"], "when": {"model.n_layers": 2}},
            {"choices": ["inner_product"]},
        ],
        "training.loss": [
            {"choices": ["squared", "bpr"], "when": {"model.name": "inner_product"}},
            {"choices": ["softmax"], "when": {"model.name": "autoencoder"}},
        ],
        "training.l2": {"low": 0.0, "high": 1.0},
    }
    space = parse_space({"parameters": parameters}, "")
    config = replace_values(Config(), {"training.loss": "bce"})
    # gmf keeps the loss of the config, and no other model has it.
    assert variants_of(space, config) == [
        ("autoencoder", "softmax"),
        ("gmf", "bce"),
        ("inner_product", "bpr"),
        ("inner_product", "squared"),
    ]
    alone = parse_space({"parameters": {"training.l2": {"low": 0.0, "high": 1.0}}}, "")
    assert variants_of(alone, config) == [("neumf", "bce")]


def test_all_configs_of_a_search_must_fold_in_users_who_are_held_out_whole() -> None:
    data = Manifest.model_construct(n_validation_users=3)
    losses = {"choices": ["squared", "softmax"]}
    parameters = {"model.name": {"choices": ["inner_product"]}, "training.loss": losses}
    variants = variants_of(parse_space({"parameters": parameters}, ""), Config())
    with pytest.raises(InputError) as error:
        require_fold_in([*variants, Variant("gmf", "bce")], data, "search space")
    assert str(error.value) == (
        "search space: must fold in users for data.split: users, but got inner_product with the "
        "loss softmax and 1 more. Use configs with model.name: autoencoder or diffusion, or with "
        "model.name: inner_product and training.loss: squared, or another data.split."
    )
    require_fold_in([Variant("inner_product", "squared")], data, "search space")
    require_fold_in(variants, Manifest.model_construct(), "search space")
