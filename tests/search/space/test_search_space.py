from pathlib import Path
from typing import Any

import optuna
import pytest

from recsys.config.schema import Config, replace_values
from recsys.errors import InputError
from recsys.search.space import validity
from recsys.search.space.domains import Domain
from recsys.search.space.search_space import SearchSpace, by_path
from recsys.search.space.space_file import parse_space, read_space
from recsys.search.space.validity import require_valid

NESTED: dict[str, Any] = {
    # Children come before their parents on purpose.
    "model.dropout": {"low": 0.1, "high": 0.5, "when": {"model.n_layers": [2, 3]}},
    "model.n_layers": {"low": 1, "high": 3, "when": {"model.name": ["mlp", "neumf"]}},
    "model.name": {"choices": ["gmf", "mlp", "neumf"]},
    "training.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
}


ALTERNATIVES: dict[str, Any] = {
    "model.embedding_dim": [
        {"low": 8, "high": 16, "when": {"model.name": ["mlp"]}},
        {"low": 100, "high": 200},
    ],
    "model.name": {"choices": ["gmf", "mlp"]},
}
SPACES = Path(__file__).parents[3] / "search_spaces"


def space_of(parameters: dict[str, Any], *warm_start: dict[str, Any]) -> SearchSpace:
    return parse_space({"parameters": parameters, "warm_start": list(warm_start)}, "space.yaml")


def suggest(space: SearchSpace, values: dict[str, Any]) -> tuple[dict[str, Any], optuna.Trial]:
    """Return what the space suggests to a trial of a real study with these values queued."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.enqueue_trial(values)
    trial = study.ask()
    return dict(space.suggest(trial)), trial


@pytest.mark.parametrize(
    ("values", "sampled"),
    [
        ({"model.name": "gmf"}, {"model.name", "training.learning_rate"}),
        (
            {"model.name": "mlp", "model.n_layers": 1},
            {"model.name", "training.learning_rate", "model.n_layers"},
        ),
        (
            {"model.name": "neumf", "model.n_layers": 3},
            {"model.name", "training.learning_rate", "model.n_layers", "model.dropout"},
        ),
    ],
)
def test_a_parameter_is_sampled_where_its_condition_holds(
    values: dict[str, Any], sampled: set[str]
) -> None:
    suggested, trial = suggest(space_of(NESTED), values)
    assert suggested.keys() == sampled
    # Optuna has no other value: one that does not apply would mislead the sampler.
    assert trial.params == suggested


def test_a_parent_is_sampled_before_its_children() -> None:
    assert space_of(NESTED).paths == (
        "model.name",
        "training.learning_rate",
        "model.n_layers",
        "model.dropout",
    )


def test_a_condition_on_a_parameter_that_does_not_apply_does_not_hold() -> None:
    # The queued value of 3 layers, for which dropout would be sampled, has no effect: gmf has no
    # layers.
    assert suggest(space_of(NESTED), {"model.name": "gmf", "model.n_layers": 3})[0].keys() == {
        "model.name",
        "training.learning_rate",
    }


def test_a_path_that_is_fixed_decides_the_conditions_on_it() -> None:
    mlp, gmf = (replace_values(Config(), {"model.name": name}) for name in ("mlp", "gmf"))
    left = space_of(NESTED).fixed(["model.name"], mlp)
    assert left.paths == ("training.learning_rate", "model.n_layers", "model.dropout")
    assert {domain.path: domain.when for domain in left.domains} == {
        "training.learning_rate": {},
        "model.n_layers": {},
        "model.dropout": {"model.n_layers": (2, 3)},
    }
    # A domain that depends on a parameter that no longer applies is removed too.
    assert space_of(NESTED).fixed(["model.name"], gmf).paths == ("training.learning_rate",)


@pytest.mark.parametrize("name", ["inner_product", "gmf", "mlp", "neumf"])
@pytest.mark.parametrize("file", sorted(SPACES.glob("*.yaml")), ids=lambda file: file.stem)
def test_a_space_with_fixed_paths_can_be_written_and_read(file: Path, name: str) -> None:
    left = read_space(file).fixed(["model.name"], replace_values(Config(), {"model.name": name}))
    read = parse_space(left.tree(), "space.yaml")
    assert (read.named, read.warm_start) == (left.named, left.warm_start)
    # The variant's own file says the same with a single choice.
    own = read_space(SPACES / f"{name}.yaml")
    if file.stem == "ncf":
        assert set(left.paths) == set(own.paths) - {"model.name"}


def test_of_several_domains_one_that_always_applies_ends_the_list() -> None:
    space = space_of(ALTERNATIVES)
    (mlp,) = space.fixed(["model.name"], replace_values(Config(), {"model.name": "mlp"})).domains
    (gmf,) = space.fixed(["model.name"], replace_values(Config(), {"model.name": "gmf"})).domains
    assert (mlp.low, mlp.when, gmf.low, gmf.when) == (8, {}, 100, {})


def test_distributions_are_those_of_the_file() -> None:
    _, trial = suggest(space_of(NESTED), {"model.name": "mlp", "model.n_layers": 2})
    assert trial.distributions == {
        "model.name": optuna.distributions.CategoricalDistribution(("gmf", "mlp", "neumf")),
        "model.n_layers": optuna.distributions.IntDistribution(1, 3),
        "model.dropout": optuna.distributions.FloatDistribution(0.1, 0.5),
        "training.learning_rate": optuna.distributions.FloatDistribution(1e-4, 1e-2, log=True),
    }


def test_every_suggestion_is_a_valid_config_within_its_domains() -> None:
    space = space_of(NESTED)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    names = set()
    for _ in range(50):
        values = space.suggest(study.ask())
        config = replace_values(Config(), values)
        domains = {domain.path: domain for domain in space.domains}
        assert all(domains[path].contains(value) for path, value in values.items())
        names.add(config.model.name)
    assert names == {"gmf", "mlp", "neumf"}


@pytest.mark.parametrize(
    ("base", "point", "outside"),
    [
        # The default, neumf, with dropout 0.0: outside from 0.1 to 0.5.
        (
            {},
            {
                "model.name": "neumf",
                "model.n_layers": 3,
                "model.dropout": 0.1,
                "training.learning_rate": 1e-3,
            },
            {"model.dropout": 0.0},
        ),
        (
            {"model.dropout": 0.2, "model.n_layers": 9},
            {
                "model.name": "neumf",
                "model.n_layers": 3,
                "model.dropout": 0.2,
                "training.learning_rate": 1e-3,
            },
            {"model.n_layers": 9},
        ),
        (
            {"model.name": "gmf", "training.learning_rate": 0.5},
            {"model.name": "gmf", "training.learning_rate": 0.01},
            {"training.learning_rate": 0.5},
        ),
        # A choice that the space leaves out is not wanted.
        (
            {"model.name": "inner_product"},
            {"model.name": "gmf", "training.learning_rate": 1e-3},
            {},
        ),
    ],
)
def test_the_point_that_is_nearest_to_a_config_and_the_values_outside_of_it(
    base: dict[str, Any], point: dict[str, Any], outside: dict[str, Any]
) -> None:
    config = replace_values(Config(), base)
    assert (space_of(NESTED).point(config), space_of(NESTED).outside_values(config)) == (
        point,
        outside,
    )


@pytest.mark.parametrize(
    ("domain", "value", "nearest"),
    [
        (Domain("x", None, 2, 5, False, {}), 3, 3),
        (Domain("x", None, 2, 5, False, {}), 1, 2),
        (Domain("x", None, 2, 5, False, {}), 9, 5),
        (Domain("x", None, 2, 5, False, {}), None, 5),
        (Domain("x", (None, "linear"), None, None, False, {}), "linear", "linear"),
        (Domain("x", ("cosine", "linear"), None, None, False, {}), None, "cosine"),
    ],
)
def test_the_nearest_value_of_a_domain(domain: Domain, value: Any, nearest: Any) -> None:
    assert domain.nearest(value) == nearest


def test_fixed_paths_leave_the_warm_starts_too() -> None:
    space = space_of(
        NESTED, {"model.name": "mlp", "training.learning_rate": 1e-3}, {"model.name": "gmf"}
    )
    # Of the second nothing is left to start with.
    assert space.fixed(["model.name"], Config()).warm_start == ({"training.learning_rate": 1e-3},)
    assert "model.name" in space.paths


def test_the_tree_of_a_space_reads_back_as_the_same() -> None:
    space = space_of(NESTED, {"model.name": "mlp"})
    assert parse_space(space.tree(), "space.yaml") == space


@pytest.mark.parametrize(
    ("name", "dim", "known_as"),
    [("mlp", 16, "model.embedding_dim [model.name=mlp]"), ("gmf", 150, "model.embedding_dim")],
)
def test_of_several_domains_the_first_that_applies_is_sampled(
    name: str, dim: int, known_as: str
) -> None:
    space = space_of(ALTERNATIVES, {"model.name": name, "model.embedding_dim": dim})
    # Each domain has its own name, because Optuna allows one domain per name.
    suggested, trial = suggest(space, space.by_name(space.warm_start[0]))
    assert suggested == {"model.name": name, "model.embedding_dim": dim}
    assert trial.params == {"model.name": name, known_as: dim}
    assert by_path(trial.params) == suggested
    assert parse_space(space.tree(), "space.yaml") == space


def test_the_last_of_several_domains_is_for_all_other_trials() -> None:
    space, study = (
        space_of(ALTERNATIVES),
        optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1)),
    )
    dims: dict[str, list[Any]] = {"gmf": [], "mlp": []}
    for _ in range(30):
        values = space.suggest(study.ask())
        dims[str(values["model.name"])].append(values["model.embedding_dim"])
    assert all(8 <= dim <= 16 for dim in dims["mlp"])
    assert all(100 <= dim <= 200 for dim in dims["gmf"])
    assert min(map(len, dims.values())) > 5


def test_a_third_parameter_counts_only_where_it_is_sampled() -> None:
    # With bce the space has no similarity, so that bce meets the cosine of the config.
    config = replace_values(
        Config(),
        {"model.name": "gmf", "training.loss": "softmax", "model.similarity": "cosine"},
    )
    space = space_of(
        {
            "training.loss": {"choices": ["softmax", "bce"]},
            "model.similarity": {
                "choices": ["dot", "cosine"], "when": {"training.loss": "softmax"}
            },
        }
    )  # fmt: skip
    with pytest.raises(InputError, match="must be dot with the loss bce"):
        require_valid(space, config)


def test_a_pair_is_checked_under_a_parent_that_both_allow() -> None:
    space = space_of(
        {
            "model.name": {"choices": ["gmf", "mlp"]},
            "training.resample_negatives": {"choices": [False], "when": {"model.name": "mlp"}},
            "training.n_negatives": {"low": 1, "high": 32, "when": {"model.name": ["gmf", "mlp"]}},
        }
    )
    with pytest.raises(InputError, match="n_negatives"):
        require_valid(space, Config())


def test_of_two_domains_with_one_condition_the_first_is_sampled() -> None:
    space = space_of(
        {
            "model.name": {"choices": ["mlp", "neumf"]},
            "training.loss": {"choices": ["softmax", "bce"]},
            "model.embedding_dim": [
                {"low": 8, "high": 16, "when": {"model.name": "mlp", "training.loss": "softmax"}},
                {
                    "low": 64,
                    "high": 128,
                    "when": {"model.name": ["mlp", "neumf"], "training.loss": "softmax"},
                },
                {"low": 200, "high": 300},
            ],
        }
    )
    fixed = space.fixed(["model.name"], replace_values(Config(), {"model.name": "mlp"}))
    for seed in range(5):
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
        study.enqueue_trial({"training.loss": "softmax"})
        dim = fixed.suggest(study.ask())["model.embedding_dim"]
        assert isinstance(dim, int)
        assert 8 <= dim <= 16


def test_a_pair_that_a_third_parameter_makes_valid_is_no_mistake() -> None:
    # The default model is neumf, for which no loss may be squared; but it is never sampled here.
    parameters = {
        "model.name": {"choices": ["inner_product"]},
        "training.loss": {"choices": ["squared", "bce"]},
    }
    require_valid(space_of(parameters), Config())
    parameters["model.name"]["choices"].append("gmf")
    with pytest.raises(
        ValueError, match=r"^search space: training\.loss: must not be squared for the model gmf"
    ):
        require_valid(space_of(parameters), Config())


def choices(*values: Any) -> Domain:
    return Domain("x", values, None, None, False, {})


@pytest.mark.parametrize(
    ("domain", "inside", "outside"),
    [
        (choices(True, False), [True, False], [1, 0, None]),
        (choices(1, 2), [1, 2], [True, 3]),
        (choices(None, "linear"), [None, "linear"], ["", "None", False]),
        (Domain("x", None, 1, 3, False, {}), [1, 2, 3], [0, 4, 2.0, True, "2", None]),
        (
            Domain("x", None, 0.0, 1.0, False, {}),
            [0.0, 1.0, 1, 0.5],
            [1.1, -0.1, True, "0.5", None, float("nan")],
        ),
    ],
)
def test_contains(domain: Domain, inside: list[Any], outside: list[Any]) -> None:
    assert [value for value in inside if not domain.contains(value)] == []
    assert [value for value in outside if domain.contains(value)] == []


@pytest.mark.parametrize(
    ("domain", "expected"),
    [
        (choices("gmf", "mlp"), "one of gmf, mlp"),
        (Domain("x", None, 8, 128, True, {}), "from 8 to 128"),
        (Domain("x", None, 1e-4, 0.03, True, {}), "from 0.0001 to 0.03"),
    ],
)
def test_a_domain_in_words(domain: Domain, expected: str) -> None:
    assert str(domain) == expected


def test_the_space_is_checked_with_the_base() -> None:
    space = space_of({"training.n_negatives": {"low": 1, "high": 32}})
    require_valid(space, Config())
    with pytest.raises(
        ValueError,
        match=r"^search space: training\.n_negatives: must be at most data\.n_negatives, 4",
    ) as caught:
        require_valid(space, replace_values(Config(), {"training.resample_negatives": False}))
    assert "but got 32." in str(caught.value)


def test_parameters_that_exclude_each_other_are_found_before_the_search() -> None:
    space = space_of(
        {
            "training.resample_negatives": {"choices": [True, False]},
            "training.n_negatives": {"low": 1, "high": 32},
            "training.negative_sampling": {"choices": ["uniform", "popularity"]},
        }
    )
    with pytest.raises(ValueError, match="search space: 2 mistakes") as caught:
        require_valid(space, Config())
    assert "  training.n_negatives: must be at most data.n_negatives, 4" in str(caught.value)
    assert "  training.negative_sampling: must be uniform without" in str(caught.value)


def test_parameters_of_different_trials_do_not_exclude_each_other() -> None:
    when = {"training.resample_negatives": [True]}
    space = space_of(
        {
            "training.resample_negatives": {"choices": [True, False]},
            "training.n_negatives": {"low": 1, "high": 32, "when": when},
        }
    )
    require_valid(space, Config())
    # If the base contradicts the condition, the parameter is never sampled.
    fixed = replace_values(Config(), {"training.resample_negatives": False})
    require_valid(space, fixed)
    require_valid(space.fixed(["training.resample_negatives"], fixed), fixed)


def test_choices_are_checked_by_their_smallest_and_largest(monkeypatch: pytest.MonkeyPatch) -> None:
    parameters = {
        path: {"choices": [n / 400 for n in range(1, 401)]}
        for path in ("training.l2", "training.learning_rate")
    }
    space, checked = space_of(parameters), list[dict[str, Any]]()

    def count(base: Config, values: dict[str, Any]) -> list[str]:
        checked.append(dict(values))
        return refusals(base, values)

    refusals = validity.refusals
    monkeypatch.setattr(validity, "refusals", count)
    require_valid(space, Config())
    # Two edges of each domain, and their four pairs.
    ends = (1 / 400, 1.0)
    alone = [{path: end} for path in parameters for end in ends]
    pairs = [
        {"training.l2": one, "training.learning_rate": other} for one in ends for other in ends
    ]
    assert sorted(checked, key=str) == sorted([*alone, *pairs], key=str)


@pytest.mark.parametrize(("allowed", "refused"), [([1, 2], []), ([2, 8, 3], [8]), ([1, 32], [32])])
def test_a_condition_on_some_of_the_choices_is_checked_with_those(
    allowed: list[int], refused: list[int]
) -> None:
    # Of 4 fixed negatives at most 4 can be used, and they are used under the condition alone.
    parameters = {
        "training.n_negatives": {"choices": [1, 2, 3, 8, 32]},
        "training.resample_negatives": {
            "choices": [False],
            "when": {"training.n_negatives": allowed},
        },
    }
    try:
        require_valid(space_of(parameters), Config())
        message = ""
    except ValueError as error:
        message = str(error)
    assert [value for value in (1, 2, 3, 8, 32) if f"but got {value}." in message] == refused
