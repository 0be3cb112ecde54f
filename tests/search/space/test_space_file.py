from pathlib import Path
from typing import Any

import pytest

from recsys.errors import InputError
from recsys.search.space.domains import Domain
from recsys.search.space.search_space import SearchSpace
from recsys.search.space.space_file import parse_space, read_space

FORM = (
    "must be {low, high}, with log: true if wanted, or {choices: [...]}, either with when, "
    "or a list of such"
)
GMF: dict[str, Any] = {"choices": ["gmf", "mlp"]}
DROPOUT: dict[str, Any] = {"low": 0.0, "high": 0.5}


def mistake(tree: dict[str, Any]) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the message is what is asserted)
        parse_space(tree, "s.yaml")
    return str(caught.value)


def test_reading_a_file(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(
        "parameters:\n"
        "  model.n_layers: {low: 1, high: 4, when: {model.name: mlp}}\n"
        "  model.name: {choices: [gmf, mlp]}\n"
        "  training.learning_rate: {low: 1e-4, high: 1, log: true}\n"
        "  training.learning_rate_decay: {choices: [null, linear]}\n"
        "warm_start:\n"
        "  - {model.name: mlp, model.n_layers: 2}\n"
    )
    space = read_space(file)
    assert space == SearchSpace(
        (
            Domain("model.name", ("gmf", "mlp"), None, None, False, {}),
            Domain("training.learning_rate", None, 1e-4, 1.0, True, {}),
            Domain("training.learning_rate_decay", (None, "linear"), None, None, False, {}),
            Domain("model.n_layers", None, 1, 4, False, {"model.name": ("mlp",)}),
        ),
        ({"model.name": "mlp", "model.n_layers": 2},),
    )
    # Optuna samples ints from a range of ints, floats from a range of floats.
    high = {domain.path: domain.high for domain in space.domains}
    assert type(high["model.n_layers"]) is int
    assert type(high["training.learning_rate"]) is float


@pytest.mark.parametrize(
    ("path", "given", "expected"),
    [
        # unknown or not to be searched
        (
            "model.embeding_dim",
            GMF,
            "must be a config path, but got an unknown name. Did you mean model.embedding_dim?",
        ),
        (
            "learning_rate",
            GMF,
            "must be a config path, but got an unknown name. Did you mean training.learning_rate?",
        ),
        (
            "data.n_negatives",
            {"low": 1, "high": 2},
            "must be under model or training, since the trials of a study share "
            "the rest, but got data.n_negatives. "
            "Set it in the config.",
        ),
        # neither a range nor choices
        ("model.dropout", 0.5, f"{FORM}, but got 0.5. Write it as one of the two."),
        ("model.dropout", [[0.1, 0.2]], f"{FORM}, but got [0.1, 0.2]. Write it as one of the two."),
        (
            "model.dropout",
            {"low": 0.1},
            f"{FORM}, but got {{'low': 0.1}}. Write it as one of the two.",
        ),
        (
            "model.dropout",
            {"choices": []},
            f"{FORM}, but got {{'choices': []}}. Write it as one of the two.",
        ),
        (
            "model.dropout",
            {"low": 0.0, "high": 0.5, "log": "no"},
            f"{FORM}, but got {{'low': 0.0, 'high': 0.5, 'log': 'no'}}. Write it "
            f"as one of the two.",
        ),
        (
            "model.dropout",
            {"low": 0.0, "high": 0.5, "step": 0.1},
            f"{FORM}, but got {{'low': 0.0, 'high': 0.5, 'step': 0.1}}. Write it "
            f"as one of the two.",
        ),
        (
            "model.dropout",
            {"choices": [0.1], "high": 0.5},
            f"{FORM}, but got {{'choices': [0.1], 'high': 0.5}}. Write it as one of the two.",
        ),
        # ranges
        (
            "model.n_layers",
            {"low": 4, "high": 1},
            "low must be less than high, but got 4 and 1. Swap or widen them.",
        ),
        (
            "model.n_layers",
            {"low": 4, "high": 4},
            "low must be less than high, but got 4 and 4. Swap or widen them.",
        ),
        (
            "training.l2",
            {"low": 0, "high": 1, "log": True},
            "low must be greater than 0 with log, but got 0. Raise it or leave log out.",
        ),
        (
            "model.n_layers",
            {"low": "1", "high": 4},
            "low and high must be numbers, but got '1' and 4. Correct them or give choices.",
        ),
        (
            "model.n_layers",
            {"low": True, "high": 4},
            "low and high must be numbers, but got True and 4. Correct them or give choices.",
        ),
        (
            "model.name",
            {"low": 1, "high": 2},
            "must have choices, since it is no number, but got a range. Write {choices: [...]}.",
        ),
        (
            "model.bias",
            {"low": 0, "high": 1},
            "must have choices, since it is no number, but got a range. Write {choices: [...]}.",
        ),
        # what the field refuses
        (
            "model.embedding_dim",
            {"low": 0, "high": 4},
            "must be at least 1, but got 0. The default is 16.",
        ),
        (
            "model.n_layers",
            {"low": 1.0, "high": 4},
            "must be a whole number, but got 1.0. The default is 3.",
        ),
        (
            "model.dropout",
            {"low": 0, "high": 1},
            "must be less than 1, but got 1. The default is 0.0.",
        ),
        (
            "training.l2",
            {"low": 0, "high": float("inf")},
            "must be a finite number, but got inf. The default is 0.0.",
        ),
        (
            "model.name",
            {"choices": ["gmf", "nmf"]},
            "must be one of inner_product, gmf, mlp, neumf, "
            "autoencoder, diffusion, rqvae, but got 'nmf'. The default is neumf.",
        ),
        (
            "model.bias",
            {"choices": [True, 0]},
            "must be true or false, but got 0. The default is true.",
        ),
        (
            "model.n_layers",
            {"choices": [1, None]},
            "must be a whole number, but got null. The default is 3.",
        ),
        # choices among themselves
        (
            "model.n_layers",
            {"choices": [1, {2}]},
            "choices must be plain values, but got [1, {2}]. Name each value.",
        ),
        (
            "model.n_layers",
            {"choices": list(range(1, 1002))},
            "choices must be at most 1,000, but got 1,001. Leave some out, or give a range.",
        ),
        (
            "model.n_layers",
            {"choices": [1, 2, 1]},
            "choices must differ, but got [1, 2, 1]. Remove the repeated ones.",
        ),
        (
            "model.n_layers",
            {"choices": [[1, 2]]},
            "choices must be plain values, but got [[1, 2]]. Name each value.",
        ),
        # conditions
        (
            "model.dropout",
            {**DROPOUT, "when": {"model.dropout": [0.1]}},
            "when must name another parameter, but got the parameter itself. Remove it.",
        ),
        (
            "model.dropout",
            {**DROPOUT, "when": {"model.name": ["mlp"]}},
            "when must name a parameter of this file, but got model.name. Known are model.dropout.",
        ),
        (
            "model.dropout",
            {**DROPOUT, "when": "mlp"},
            "when must map parameters to values, but got 'mlp'. Write {model.name: [mlp]}.",
        ),
        (
            "model.dropout",
            {**DROPOUT, "when": {"model.name": []}},
            "when must map parameters to values, but got {'model.name': []}. "
            "Write {model.name: [mlp]}.",
        ),
    ],
)
def test_a_mistake_in_a_domain(path: str, given: Any, expected: str) -> None:
    assert mistake({"parameters": {path: given}}) == f"s.yaml: {path}: {expected}"


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        (
            {"model.nam": ["gmf"]},
            "when must name a parameter of this file, but got model.nam. Did you mean model.name?",
        ),
        (
            {"model.name": ["neumf"]},
            "when must name values of model.name, one of gmf, mlp, but got "
            "'neumf'. Correct or remove it.",
        ),
        (
            {"model.n_layers": [9]},
            "when must name values of model.n_layers, from 1 to 4, but got 9. "
            "Correct or remove it.",
        ),
    ],
)
def test_a_mistake_in_a_condition_on_another(when: dict[str, Any], expected: str) -> None:
    parameters = {
        "model.name": GMF,
        "model.n_layers": {"low": 1, "high": 4},
        "model.dropout": {**DROPOUT, "when": when},
    }
    assert mistake({"parameters": parameters}) == f"s.yaml: model.dropout: {expected}"


def test_conditions_in_a_circle() -> None:
    parameters = {
        "model.bias": {"choices": [True, False]},
        "model.name": {**GMF, "when": {"model.n_layers": [1]}},
        "model.n_layers": {"low": 1, "high": 4, "when": {"model.name": ["mlp"]}},
    }
    circle = "when must not lead back to itself, but got a circle. Remove one condition."
    assert mistake({"parameters": parameters}).splitlines() == [
        "s.yaml: 2 mistakes",
        f"  model.name: {circle}",
        f"  model.n_layers: {circle}",
    ]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, "warm_start: must be a list of points, but got None. Write - {model.name: gmf}."),
        (
            {"model.name": "gmf"},
            "warm_start: must be a list of points, but got {'model.name': "
            "'gmf'}. Write - {model.name: gmf}.",
        ),
        (
            ["gmf"],
            "warm_start: must be a list of points, but got ['gmf']. Write - {model.name: gmf}.",
        ),
        (
            [{}, {"model.nam": "gmf"}],
            "warm_start 2: model.nam must be a parameter of this file, but got "
            "none. Did you mean model.name?",
        ),
        (
            [{"model.name": "neumf"}],
            "warm_start 1: model.name must be one of gmf, mlp, but got 'neumf'. "
            "Correct it or widen the domain.",
        ),
        (
            [{"model.dropout": 0.6}],
            "warm_start 1: model.dropout must be from 0 to 0.5, but got 0.6. "
            "Correct it or widen the domain.",
        ),
        (
            [{"model.n_layers": 2.0}],
            "warm_start 1: model.n_layers must be from 1 to 4, but got 2.0. "
            "Correct it or widen the domain.",
        ),
    ],
)
def test_a_mistake_in_a_warm_start(given: Any, expected: str) -> None:
    parameters = {
        "model.name": GMF,
        "model.n_layers": {"low": 1, "high": 4},
        "model.dropout": DROPOUT,
    }
    assert mistake({"parameters": parameters, "warm_start": given}) == f"s.yaml: {expected}"


@pytest.mark.parametrize("given", [None, [], {}, "model.name"])
def test_there_must_be_parameters(given: Any) -> None:
    expected = (
        f"s.yaml: parameters: must map config paths to domains, but got {given!r}. "
        f"See the README's example."
    )
    assert mistake({"parameters": given}) == expected


def test_parameters_at_the_top_are_two_mistakes() -> None:
    assert mistake({"model.name": GMF}).splitlines() == [
        "s.yaml: 2 mistakes",
        "  model.name: must be parameters or warm_start, but got another name. "
        "Correct or remove it.",
        "  parameters: must map config paths to domains, but got None. See the README's example.",
    ]


def test_all_mistakes_of_a_file_are_reported_together(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(
        "parameters:\n"
        "  model.nmae: {choices: [gmf]}\n"
        "  model.n_layers: {low: 4, high: 1}\n"
        "  model.dropout: {low: 0.0, high: 0.5, when: {model.bias: [1]}}\n"
        "  model.bias: {choices: [true, false]}\n"
        "warm_start:\n"
        "  - {model.dropout: 0.9}\n"
        "  - {model.n_layers: 99}\n"  # no second mistake: its domain is one already
        "options: {}\n"
    )
    with pytest.raises(ValueError, match="5 mistakes") as caught:
        read_space(file)
    assert str(caught.value).splitlines() == [
        f"{file}: 5 mistakes",
        "  options: must be parameters or warm_start, but got another name. Correct or remove it.",
        "  model.nmae: must be a config path, but got an unknown name. Did you mean model.name?",
        "  model.n_layers: low must be less than high, but got 4 and 1. Swap or widen them.",
        "  model.dropout: when must name values of model.bias, one of True, "
        "False, but got 1. Correct or remove it.",
        "  warm_start 1: model.dropout must be from 0 to 0.5, but got 0.9. "
        "Correct it or widen the domain.",
    ]


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"must be a YAML file, but got no such file\. Check the path\."
    ):
        read_space(tmp_path / "s.yaml")


def test_a_space_has_at_most_50_domains() -> None:
    domains = [{"low": 1, "high": 2, "when": {"model.name": "gmf"}}] * 50
    space = {"parameters": {"model.n_layers": domains, "model.name": {"choices": ["gmf"]}}}
    with pytest.raises(ValueError, match="x") as caught:
        parse_space(space, "x.yaml")
    assert (
        str(caught.value)
        == "x.yaml: parameters: must have at most 50 domains, but got 51. Remove some."
    )
    domains.pop()
    assert len(parse_space(space, "x.yaml").domains) == 50
