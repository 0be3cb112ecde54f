"""Random search spaces: each is valid or a mistake, and all that a space samples is valid."""

from typing import Any

import optuna
from hypothesis import given
from hypothesis import strategies as st

from recsys.config.files import dump_yaml
from recsys.config.schema import Config, config_paths, get_value, replace_values
from recsys.config.yaml_text import parse_yaml
from recsys.errors import InputError
from recsys.search.space.search_space import SearchSpace
from recsys.search.space.space_file import parse_space
from recsys.search.space.validity import require_valid

PATHS = [path for path in config_paths() if path.startswith(("model.", "training."))]
WORDS = st.sampled_from(
    ["gmf", "mlp", "neumf", "bce", "bpr", "softmax", "linear", "cosine", "uniform", "popularity"]
)
SCALAR = (
    st.none()
    | st.booleans()
    | st.integers(-2, 70)
    | st.floats(0, 1)
    | st.floats()
    | WORDS
    | st.text(max_size=5)
)
CONDITION = st.dictionaries(
    st.sampled_from(PATHS), SCALAR | st.lists(SCALAR, max_size=3), max_size=2
)
TREE = st.recursive(
    SCALAR,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(SCALAR, inner, max_size=3),
    max_leaves=8,
)


def with_condition(domain: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return domain | st.builds(lambda found, when: {**found, "when": when}, domain, CONDITION)


WHOLE = st.builds(
    lambda low, width, log: {"low": low, "high": low + width, "log": log},
    *[st.integers(1, 64)] * 2,
    st.booleans(),
)
SHARE = st.builds(
    lambda low, width, log: {"low": low, "high": low + width, "log": log},
    *[st.floats(0, 0.4)] * 2,
    st.booleans(),
)
CHOICES = st.builds(
    lambda choices: {"choices": choices},
    st.lists(SCALAR, max_size=3) | st.lists(WORDS, min_size=1, max_size=3),
)
DOMAIN = with_condition(WHOLE | SHARE | CHOICES)
PARAMETERS = st.dictionaries(
    st.sampled_from(PATHS) | st.text(max_size=5), DOMAIN | TREE, max_size=4
)
POINTS = st.lists(st.dictionaries(st.sampled_from(PATHS), SCALAR, max_size=3), max_size=2)
NAMES = {
    "model.name": ["inner_product", "gmf", "mlp", "neumf"],
    "training.loss": ["bce", "bpr", "softmax"],
}


def likely_domain(path: str) -> st.SearchStrategy[dict[str, Any]]:
    """Return domains of the default's type, most of which are valid for the path."""
    default = get_value(Config(), path)
    if path in NAMES or isinstance(default, bool) or not isinstance(default, int | float):
        choices = NAMES.get(path, [default])
        return st.lists(st.sampled_from(choices), min_size=1, unique=True).map(
            lambda found: {"choices": found}
        )
    return with_condition(WHOLE) if isinstance(default, int) else SHARE


@st.composite
def likely_files(draw: st.DrawFn) -> dict[str, Any]:
    paths = draw(st.lists(st.sampled_from(PATHS), min_size=1, max_size=3, unique=True))
    return {"parameters": {path: draw(likely_domain(path)) for path in paths}}


LIKELY = likely_files()
FILE = LIKELY | st.fixed_dictionaries(
    {"parameters": PARAMETERS | TREE}, optional={"warm_start": POINTS | TREE, "more": TREE}
)


def space_of(tree: dict[str, Any]) -> SearchSpace | None:
    """Return the space if it is valid with the defaults; otherwise check the message's form."""
    message = None
    try:
        space = parse_space(tree, "space.yaml")
        require_valid(space, Config())
    except ValueError as error:
        if not isinstance(error, InputError):
            raise
        message = str(error)
    if message is None:
        return space
    headline, *mistakes = message.split("\n  ")
    for mistake in mistakes or [headline.partition(": ")[2]]:
        assert ": " in mistake
        assert " must " in mistake
        assert "but got " in mistake
    return None


@given(tree=FILE, seed=st.integers(0, 9))
def test_what_a_space_samples_is_a_valid_config(tree: dict[str, Any], seed: int) -> None:
    space = space_of(tree)
    if space is None:
        return
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    for _ in range(4):
        values = space.suggest(study.ask())
        config = replace_values(Config(), values)
        assert space.point(config) == values
    # The space that is stored with a study reads back as the same.
    assert parse_space(parse_yaml(dump_yaml(space.tree()), "again"), "again") == space


def test_some_of_the_files_are_spaces() -> None:
    found = {"space": 0, "mistake": 0}

    @given(tree=FILE)
    def count(tree: dict[str, Any]) -> None:
        found["space" if space_of(tree) else "mistake"] += 1

    count()
    assert min(found.values()) >= 10
