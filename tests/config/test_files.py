import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.config import values
from recsys.config.files import (
    Override,
    config_yaml,
    dump_yaml,
    load_config,
    parse_config,
    parse_override,
    read_yaml,
)
from recsys.config.mistakes import suggestion, unknown_path
from recsys.config.schema import Config, replace_values
from recsys.config.yaml_text import parse_yaml
from recsys.data.resolve import uses_candidates
from recsys.errors import InputError
from recsys.evaluation.evaluate import protocol_name
from recsys.storage.credentials import with_password

README = "See the config paths in the README."


def overrides(*texts: str) -> list[Override]:
    return [parse_override(text, "--set") for text in texts]


def mistake(file: Path, content: str | bytes, *settings: str) -> str:
    """Return the error about a config file with this content, without the folder's name."""
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the message is what is asserted)
        load_config(file, overrides(*settings))
    return str(caught.value).replace(f"{file.parent}{os.sep}", "")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (
            "training: {batch_size: '512'}",
            "training.batch_size: must be a whole number, but got '512'. The default is 2048.",
        ),
        (
            "training: {batch_size: 0}",
            "training.batch_size: must be at least 1, but got 0. The default is 2048.",
        ),
        (
            "training: {learning_rate: 0}",
            "training.learning_rate: must be greater than 0, but got 0. The default is 0.001.",
        ),
        (
            "training: {learning_rate: .nan}",
            "training.learning_rate: must be a finite number, but got nan. The default is 0.001.",
        ),
        (
            "training: {learning_rate: fast}",
            "training.learning_rate: must be a number, but got 'fast'. The default is 0.001.",
        ),
        (
            "resources: {custom: [big]}",
            "resources.custom: must be a mapping of names to values, but got ['big']. The default "
            "is {}.",
        ),
        (
            "resources: {custom: {big: -1}}",
            "resources.custom: must be greater than 0, but got -1. The default is {}.",
        ),
        (
            "resources: {custom: {CPU: 2}}",
            "resources.custom: must leave CPUs and GPUs to their own settings, but got CPU. Set "
            "resources.cpu.",
        ),
        (
            "training: {max_epochs: null}",
            "training.max_epochs: must be a whole number, but got null. The default is 20.",
        ),
        (
            "model: {dropout: 1}",
            "model.dropout: must be less than 1, but got 1. The default is 0.0.",
        ),
        (
            "model: {name: nmf}",
            "model.name: must be one of inner_product, gmf, mlp, neumf, "
            "autoencoder, diffusion, rqvae, but got 'nmf'. The "
            "default is neumf.",
        ),
        (
            "model: {bias: no}",
            "model.bias: must be true or false, but got 'no'. The default is true.",
        ),
        (
            "data: {source: 1}",
            "data.source: must be text, but got 1. The default is ml-latest-small.",
        ),
        (
            "evaluation: {k: []}",
            "evaluation.k: must not be empty, but got []. The default is [10].",
        ),
        (
            "evaluation: {k: ten}",
            "evaluation.k: must be a list, but got 'ten'. The default is [10].",
        ),
        (
            "evaluation: {k: [5, 0]}",
            "evaluation.k: must be at least 1, but got 0. The default is [10].",
        ),
        (
            "tracking: {experiment: ''}",
            "tracking.experiment: must not be empty, but got ''. The default is recsys.",
        ),
        (
            "study: {seed: 4294967296}",
            "study.seed: must be less than 4294967296, but got 4294967296. The default is 0.",
        ),
        (
            "study: {time_budget: 10x}",
            "study.time_budget: must be a duration, but got '10x'. Write it as 90s, 10m, 1h30m or "
            "a number of seconds.",
        ),
        ("data: {files: {train: a}}", f"data.files.test: must be given, but got nothing. {README}"),
        (
            "data: {files: a}",
            "data.files: must be a group of settings, but got 'a'. The default is null.",
        ),
        ("model: gmf", f"model: must be a group of settings, but got 'gmf'. {README}"),
        ("model:", f"model: must be a group of settings, but got null. {README}"),
        (
            "model: {embeding_dim: 8}",
            "model.embeding_dim: must be a config path, but got an unknown name. Did you mean "
            "model.embedding_dim?",
        ),
        (
            "model: {learning_rate: 1}",
            "model.learning_rate: must be a config path, but got an unknown name. Did you mean "
            "training.learning_rate?",
        ),
        (
            "modle: {name: gmf}",
            "modle: must be a config path, but got an unknown name. Did you mean model?",
        ),
        (
            "data: {columns: {usr: 1}}",
            "data.columns.usr: must be a config path, but got an unknown name. Did you mean "
            "data.columns.user?",
        ),
        ("zzz: 1", f"zzz: must be a config path, but got an unknown name. {README}"),
        (
            "model.name: gmf",
            "model.name: must be nested in a config, but got one name. Write model: {name: VALUE}.",
        ),
        (
            "training: {resample_negatives: false, n_negatives: 5}",
            "training.n_negatives: must be at most data.n_negatives, 4, without "
            "training.resample_negatives, but got 5. "
            "Raise data.n_negatives or resample.",
        ),
    ],
)
def test_one_mistake_is_one_line(tmp_path: Path, content: str, expected: str) -> None:
    assert mistake(tmp_path / "c.yaml", content) == f"c.yaml: {expected}"


def test_several_mistakes_are_listed_together(tmp_path: Path) -> None:
    content = "model: {name: nmf, embedding_dim: 0, q: 3}\nzzz: 1"
    assert mistake(tmp_path / "c.yaml", content).splitlines() == [
        "c.yaml: 4 mistakes",
        "  model.name: must be one of inner_product, gmf, mlp, neumf, "
        "autoencoder, diffusion, rqvae, but got 'nmf'. The default "
        "is neumf.",
        "  model.embedding_dim: must be at least 1, but got 0. The default is 16.",
        "  model.q: must be a config path, but got an unknown name. Did you mean model.name?",
        f"  zzz: must be a config path, but got an unknown name. {README}",
    ]


def test_mistakes_of_several_places_each_name_theirs(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("model: {name: nmf}")
    with pytest.raises(ValueError, match="config: 3 mistakes") as caught:
        load_config(
            file,
            [*overrides("training.batch_size=0"), Override("study.n_trials", 0, "--trials")],
        )
    assert str(caught.value).replace(f"{tmp_path}{os.sep}", "").splitlines()[1:] == [
        "  c.yaml: model.name: must be one of inner_product, gmf, mlp, neumf, "
        "autoencoder, diffusion, rqvae, but got 'nmf'. The "
        "default is neumf.",
        "  --set: training.batch_size: must be at least 1, but got 0. The default is 2048.",
        "  --trials: study.n_trials: must be at least 1, but got 0. The default is null.",
    ]


@pytest.mark.parametrize(
    ("content", "place", "problem"),
    [
        (
            "model: {name: gmf}\nmodel: {name: mlp}",
            "c.yaml, line 2, column 1",
            'duplicate key "model"',
        ),
        ("model:\n  name: gmf\n  name: mlp", "c.yaml, line 3, column 3", 'duplicate key "name"'),
        (
            "x: !!python/object/apply:os.getcwd []",
            "c.yaml, line 1, column 4",
            "python/object/apply:os.getcwd",
        ),
        ("x: !mine 3", "c.yaml, line 1, column 4", "!mine"),
        ("model: {name: gmf", "c.yaml, line 1, column 18", "expected ',' or '}'"),
        ("model:\n\tname: gmf", "c.yaml, line 2, column 1", "'\\t'"),
        (
            "model: {name: gmf}\n---\nmodel: {name: mlp}",
            "c.yaml, line 2, column 1",
            "another document",
        ),
    ],
)
def test_broken_yaml_names_the_line(tmp_path: Path, content: str, place: str, problem: str) -> None:
    message = mistake(tmp_path / "c.yaml", content)
    assert message.startswith(f"{place}: must be valid YAML, but got ")
    assert problem in message
    assert message.endswith(" Correct the line.")
    assert "\n" not in message


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (
            b"",
            "must be a mapping of names to values, but got an empty file. See the examples in the "
            "README.",
        ),
        (
            b"# nothing\n",
            "must be a mapping of names to values, but got an empty file. See the examples in the "
            "README.",
        ),
        (
            b"- 1\n",
            "must be a mapping of names to values, but got list [1]. See the examples in the "
            "README.",
        ),
        (
            b"gmf",
            "must be a mapping of names to values, but got str 'gmf'. See the examples in the "
            "README.",
        ),
        (b"\xff\xfe\x00", "must be UTF-8 text, but got other bytes. Save it as a YAML text file."),
    ],
)
def test_files_that_hold_no_config(tmp_path: Path, content: bytes, expected: str) -> None:
    assert mistake(tmp_path / "c.yaml", content) == f"c.yaml: {expected}"


def test_a_zero_byte_is_no_yaml(tmp_path: Path) -> None:
    message = mistake(tmp_path / "c.yaml", b"model: \x00")
    assert message.startswith("c.yaml: must be valid YAML, but got unacceptable character")
    assert "\n" not in message


def test_a_missing_file_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "neumf.yaml").touch()
    with pytest.raises(InputError) as caught:
        read_yaml(tmp_path / "neunf.yaml")
    expected = (
        f"{tmp_path / 'neunf.yaml'}: must be a YAML file, but got no such file. Did you mean "
        f"{tmp_path / 'neumf.yaml'}?"
    )
    assert str(caught.value) == expected


@pytest.mark.parametrize("name", ["zzzzz.yaml", ".", "no/such/folder.yaml"])
def test_a_missing_file_or_a_folder_in_its_place(tmp_path: Path, name: str) -> None:
    (tmp_path / "neumf.yaml").touch()
    with pytest.raises(InputError) as caught:
        read_yaml(tmp_path / name)
    assert (
        str(caught.value)
        == f"{tmp_path / name}: must be a YAML file, but got no such file. Check the path."
    )


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("no", "no"),
        ("on", "on"),
        ("true", True),
        ("null", None),
        ("", None),
        ("010", 10),
        ("[1, 2]", [1, 2]),
    ],
)
def test_values_are_yaml_1_2(text: str, value: object) -> None:
    parsed = parse_yaml(text, "--set x")
    assert parsed == value
    assert type(parsed) is type(value)


def test_flag_over_set_over_file_over_default(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("training: {max_epochs: 2, batch_size: 2, n_negatives: 2}")
    sets = overrides("training.max_epochs=3", "training.batch_size=3", "training.batch_size=4")
    config = load_config(file, [*sets, Override("training.max_epochs", 5, "--max-epochs")])
    training = config.training
    assert (training.max_epochs, training.batch_size, training.n_negatives, training.l2) == (
        5,
        4,
        2,
        0.0,
    )


def test_the_environment_sets_settings_that_may_have_a_password(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("tracking: {uri: http://file}\nstudy: {storage: mysql://file/d}")
    assert load_config(file).tracking.uri == "http://file"
    monkeypatch.setenv("RECSYS_TRACKING_URI", "http://bob:pass@environment")
    monkeypatch.setenv("RECSYS_STUDY_STORAGE", "mysql://bob:pass@environment/d")
    config = load_config(file)
    assert (config.tracking.uri, config.study.storage) == (
        "http://environment",
        "mysql://bob@environment/d",
    )
    assert with_password("http://environment") == "http://bob:pass@environment"
    assert load_config(file, overrides("tracking.uri=http://set")).tracking.uri == "http://set"
    monkeypatch.setenv("RECSYS_STUDY_STORAGE", "http://h")
    with pytest.raises(
        ValueError, match=r"^RECSYS_STUDY_STORAGE: study\.storage: must begin with postgresql://"
    ):
        load_config(None)


def test_without_a_file_the_defaults_hold() -> None:
    assert load_config(None) == Config()


def test_a_config_may_be_the_base() -> None:
    base = replace_values(Config(), {"model.name": "gmf"})
    config = load_config(base, overrides("model.embedding_dim=8"))
    assert (config.model.name, config.model.embedding_dim) == ("gmf", 8)


def test_none_is_a_choice_where_null_is_absence(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    for text, title in (("none", "none"), ("null", None), ("", None)):
        file.write_text(f"data: {{columns: {{title: {text}}}}}\n")
        for config in (
            load_config(file),
            load_config(None, overrides(f"data.columns.title={text}")),
        ):
            assert config.data.columns is not None
            assert config.data.columns.title == title
        assert load_config(None).data.columns is None


def test_a_group_may_be_set_as_a_whole() -> None:
    config = load_config(None, overrides("data.files={train: a.csv, test: b.csv}"))
    assert config.data.files is not None
    assert (config.data.files.train, config.data.files.test) == ("a.csv", "b.csv")


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        (
            "model.name",
            "--set: must be PATH=VALUE, but got 'model.name'. Write it as training.batch_size=512.",
        ),
        (
            "=3",
            "--set: must be PATH=VALUE, but got '=3'. Write it as training.batch_size=512.",
        ),
        (
            "model.nam=gmf",
            "--set: model.nam: must be a config path, but got an unknown name. Did you mean "
            "model.name?",
        ),
        (
            "training.batch_size=1.5",
            "--set: training.batch_size: must be a whole number, but got 1.5. The default is 2048.",
        ),
        (
            "model.name={gmf: 1}",
            "--set: model.name: must be one of inner_product, gmf, mlp, neumf, "
            "autoencoder, diffusion, rqvae, but got {'gmf': "
            "1}. The default is neumf.",
        ),
        (
            "evaluation.k=[5",
            "--set evaluation.k, line 1, column 3: must be valid YAML, but got expected ',' or "
            "']', but got '<stream end>'. "
            "Correct the line.",
        ),
    ],
)
def test_mistakes_in_set(tmp_path: Path, setting: str, expected: str) -> None:
    assert mistake(tmp_path / "c.yaml", "{}", setting) == expected


def test_a_rule_across_settings_names_the_one_that_was_set(tmp_path: Path) -> None:
    message = mistake(
        tmp_path / "c.yaml", "training: {resample_negatives: false}", "training.n_negatives=9"
    )
    assert message.startswith(
        "--set: training.n_negatives: must be at most data.n_negatives, 4, without"
    )


def test_a_long_value_is_cut_short(tmp_path: Path) -> None:
    assert len(mistake(tmp_path / "c.yaml", f"model: {{name: {'x' * 1000}}}")) < 200


@pytest.mark.parametrize(
    ("name", "names", "expected"),
    [
        ("model.nam", ["model.name", "training.loss"], "Did you mean model.name?"),
        ("loss", ["model.name", "training.loss"], "Did you mean training.loss?"),
        ("zzz", ["model.name", "training.loss"], "Known are model.name, training.loss."),
        ("zzz", [f"a{i}" for i in range(50)], README),
    ],
)
def test_suggestion(name: str, names: list[str], expected: str) -> None:
    assert suggestion(name, names) == expected


def test_unknown_path() -> None:
    expected = (
        "learning_rate: must be a config path, but got an unknown name. Did you mean "
        "training.learning_rate?"
    )
    assert unknown_path("learning_rate") == expected


def test_a_complete_config_survives_its_file() -> None:
    values = {
        "study.time_budget": "10m",
        "training.l2": 1e-6,
        "evaluation.k": [5, 10],
        "data.source": "no",
        "model.bias": False,
    }
    config = replace_values(Config(), values)
    text = config_yaml(config)
    assert parse_config(parse_yaml(text, "text"), "text") == config
    assert text.startswith("data:\n  source: no\n")
    assert "  resample_negatives: true\n" in text


@given(
    st.dictionaries(
        st.text("ab.c", min_size=1),
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False),
    )
)
def test_a_dumped_tree_is_read_back(tree: dict[str, object]) -> None:
    assert parse_yaml(dump_yaml(tree), "text") == tree


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"])))
def test_any_text_is_dumped_as_text(text: str) -> None:
    assert parse_yaml(dump_yaml({"x": text}), "text") == {"x": text}


VALUES = st.fixed_dictionaries(
    {},
    optional={
        "study.n_trials": st.none() | st.integers(1, 100),
        "study.time_budget": st.none()
        | st.floats(1, 1e6)
        | st.sampled_from(["90s", "10m", "1h30m"]),
        "study.storage": st.none() | st.just("postgresql://who@host/name"),
        "evaluation.protocol": st.sampled_from(["auto", "full", "sampled"]),
        "evaluation.k": st.lists(st.integers(1, 100), min_size=1, max_size=3),
        "evaluation.max_users": st.sampled_from([None, "auto"]) | st.integers(1, 50),
        "evaluation.every": st.just("auto") | st.integers(1, 5),
        "training.learning_rate": st.floats(1e-9, 1e9),
        "training.patience": st.sampled_from([None, "auto"]) | st.integers(1, 9),
        "training.learning_rate_decay": st.sampled_from([None, "linear", "cosine"]),
        "resources.custom": st.dictionaries(
            st.text(min_size=1, max_size=5), st.floats(0.1, 9) | st.text(max_size=5), max_size=2
        ),
        "data.columns": st.none()
        | st.fixed_dictionaries({"user": st.integers(0, 9) | st.text(min_size=1, max_size=5)}),
        "data.files": st.none() | st.just({"train": "a", "test": "b"}),
        "data.source": st.text(min_size=1, max_size=5),
    },
)


def all_that_depends(config: Config) -> list[object]:
    """Return results of functions of a config that could depend on how it was built."""
    return [
        config,
        config.study.trial_limit,
        config.metric_name,
        [uses_candidates(config, given) for given in (False, True)],
        protocol_name(config),
        config_yaml(config),
        config.model_dump_json(),
        replace_values(config, {"model.embedding_dim": 3}).study.trial_limit,
        load_config(config, overrides("model.embedding_dim=3")),
    ]


@given(VALUES)
def test_equal_configs_behave_alike(values: dict[str, object]) -> None:
    config = replace_values(Config(), values)
    expected = all_that_depends(config)
    assert all_that_depends(parse_config(parse_yaml(config_yaml(config), "c"), "c")) == expected
    assert all_that_depends(Config.model_validate_json(config.model_dump_json())) == expected
    assert (
        all_that_depends(Config.model_validate(config.model_dump(exclude_defaults=True)))
        == expected
    )
    assert all_that_depends(replace_values(config, {"model.name": config.model.name})) == expected


def test_a_file_of_an_earlier_version_keeps_its_meaning() -> None:
    # Its complete configs had no n_trials if only a time budget ended the search, and no auto.
    budget = parse_config({"study": {"time_budget": 60.0}, "evaluation": {"protocol": "full"}}, "c")
    assert (budget.study.trial_limit, uses_candidates(budget, given=True)) == (None, False)
    both = parse_config(
        {"study": {"time_budget": 60.0, "n_trials": 30}, "evaluation": {"protocol": "sampled"}}, "c"
    )
    assert (both.study.trial_limit, uses_candidates(both, given=False)) == (30, True)


def test_a_bug_in_a_validator_is_no_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(values, "is_shared_database", lambda _url: [1, 2].remove(3))
    with pytest.raises(ValueError, match=r"list\.remove") as caught:
        parse_config({"study": {"storage": "postgresql://host/name"}}, "c.yaml")
    assert not isinstance(caught.value, InputError)
