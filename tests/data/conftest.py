from collections.abc import Callable
from pathlib import Path

import pytest

from recsys.config.schema import Config, replace_values
from recsys.data.preprocessing.pipeline import prepare
from recsys.data.processed import Processed

Prepare = Callable[..., Processed]


@pytest.fixture
def prepared(ray_here: None, tmp_path: Path) -> Prepare:
    """Function that prepares a source in the test's folder, with config values by path."""

    def run(source: Path | str | None, values: dict[str, object] | None = None) -> Processed:
        base = {} if source is None else {"data.source": str(source)}
        # Tiny data sets have fewer items than the default k.
        config = replace_values(Config(), {"evaluation.k": 1, **base, **(values or {})})
        return prepare(config, tmp_path / "experiments")

    return run
