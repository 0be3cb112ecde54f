from collections.abc import Iterator

import pytest

from recsys.config import Config


@pytest.fixture(scope="session")
def ray_here() -> Iterator[None]:
    """Ray on this machine, started once for all tests that need it."""
    import ray

    from recsys.data.pipeline import connect

    connect(Config())
    yield
    ray.shutdown()
