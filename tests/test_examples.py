from pathlib import Path

import pytest

from recsys.config.files import load_config
from recsys.config.schema import Config
from recsys.data.sources.catalog import CATALOG, EMBEDDED
from recsys.search.space.domains import Domain
from recsys.search.space.search_space import SearchSpace
from recsys.search.space.space_file import read_space
from recsys.search.space.validity import require_valid

ROOT = Path(__file__).parent.parent
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
SPACES = sorted((ROOT / "search_spaces").glob("*.yaml"))
VARIANTS = {
    "nn_inner_product": "inner_product",
    "nn_colab_filter_linear": "gmf",
    "nn_colab_filter_non_linear": "mlp",
}


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_a_config_is_read_without_a_mistake(file: Path) -> None:
    config = load_config(file)
    if file.stem in VARIANTS:
        assert config.model.name == VARIANTS[file.stem]
        assert config.data.source == EMBEDDED
    else:
        # A data set's config has the name of the data set and leaves the model to the search.
        assert config.data.source == file.stem
        assert config.model_fields_set <= {"data", "evaluation"}


def test_every_data_set_and_every_known_example_has_a_config() -> None:
    assert {file.stem for file in CONFIGS} >= {*CATALOG, EMBEDDED, *VARIANTS}


@pytest.mark.parametrize("file", SPACES, ids=lambda file: file.stem)
def test_a_search_space_is_read_without_a_mistake(file: Path) -> None:
    require_valid(read_space(file), Config())


@pytest.mark.parametrize("variant", ["inner_product", "gmf", "mlp", "neumf"])
def test_a_variants_space_is_the_whole_one_restricted_to_it(variant: str) -> None:
    whole = read_space(ROOT / "search_spaces" / "ncf.yaml")
    space = read_space(ROOT / "search_spaces" / f"{variant}.yaml")
    for parent in ("model.name", "training.loss", "training.negative_sampling"):
        # The first domain of the path that applies.
        applying = [
            domain.choices
            for domain in whole.domains
            if domain.path == parent and _applies(domain, variant, whole)
        ][:1]
        expected = [(variant,)] if parent == "model.name" else applying
        assert [domain.choices for domain in space.domains if domain.path == parent] == expected
    others = {"model.name", "training.loss", "training.negative_sampling"}
    edges = {(d.path, d.edges, d.log) for d in space.domains if d.path not in others}
    assert edges <= {(d.path, d.edges, d.log) for d in whole.domains if _applies(d, variant, whole)}
    assert {d.path for d in space.domains} == {
        d.path for d in whole.domains if _applies(d, variant, whole)
    }
    assert space.warm_start == tuple(
        point for point in whole.warm_start if point.get("model.name") == variant
    )


def _applies(domain: Domain, variant: str, space: SearchSpace) -> bool:
    """Whether a domain, and one of each path that its condition names, applies to the variant."""
    if variant not in domain.when.get("model.name", (variant,)):
        return False
    return all(
        any(_applies(d, variant, space) for d in space.domains if d.path == parent)
        for parent in domain.when
        if parent != "model.name"
    )
