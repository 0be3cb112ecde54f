from collections.abc import Iterator

import pytest

from tests.cluster.nodes import cluster_of


@pytest.fixture(scope="session")
def cluster() -> Iterator[str]:
    """The address of a cluster of one node with two CPUs.

    A search that joins it starts in half the time of one that starts Ray itself.
    """
    with cluster_of({"node": {"num_cpus": 2}}) as (running, _):
        yield running.address
