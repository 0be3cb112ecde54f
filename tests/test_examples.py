from pathlib import Path

import pytest

from recsys.config import Config
from recsys.config_files import load_config
from recsys.data.catalog import CATALOG, EMBEDDED
from recsys.search.space_file import read_space

ROOT = Path(__file__).parent.parent
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
SPACES = sorted((ROOT / "search_spaces").glob("*.yaml"))
VARIANTS = {"nn_inner_product": "inner_product", "nn_colab_filter_linear": "gmf", "nn_colab_filter_non_linear": "mlp"}


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_a_config_is_read_without_a_mistake(file: Path) -> None:
    config = load_config(file, [], {})
    if file.stem in VARIANTS:
        assert config.model.name == VARIANTS[file.stem]
        assert config.data.source == EMBEDDED
    else:
        # One a data set: what is named after it reads it, and leaves the model to the search.
        assert config.data.source == file.stem
        assert config.model_fields_set <= {"data", "evaluation"}


def test_every_data_set_and_every_known_example_has_a_config() -> None:
    assert {file.stem for file in CONFIGS} >= {*CATALOG, EMBEDDED, *VARIANTS}


@pytest.mark.parametrize("file", SPACES, ids=lambda file: file.stem)
def test_a_search_space_is_read_without_a_mistake(file: Path) -> None:
    read_space(file).check_with(Config())


@pytest.mark.parametrize("variant", ["inner_product", "gmf", "mlp", "neumf"])
def test_a_variants_space_is_the_whole_one_restricted_to_it(variant: str) -> None:
    whole = read_space(ROOT / "search_spaces" / "ncf.yaml")
    space = read_space(ROOT / "search_spaces" / f"{variant}.yaml")
    applying = {path: d for path, d in whole.domains.items() if variant in d.when.get("model.name", (variant,))}
    assert space.domains["model.name"].choices == (variant,)
    assert space.domains.keys() == applying.keys()
    edges = {path: (domain.edges, domain.log) for path, domain in space.domains.items() if path != "model.name"}
    assert edges == {path: (domain.edges, domain.log) for path, domain in applying.items() if path != "model.name"}
    assert space.warm_start == tuple(point for point in whole.warm_start if point.get("model.name") == variant)
