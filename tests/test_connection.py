"""Where Ray is started, and addresses of a Ray cluster that no cluster can have."""

import subprocess
import sys

import pytest
import ray

from recsys.cluster.connection import connect
from recsys.config.files import Override, load_config
from recsys.errors import InputError
from tests.cluster.nodes import cluster_of

CONNECT = """
import ray
from recsys.cluster.connection import connect
from recsys.config.schema import Config
connect(Config())
print(ray.get_runtime_context().gcs_address)
"""


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("head", "Invalid address format: head"),
        ("a..b:6379", "label empty or too long"),
    ],
)
def test_a_malformed_address_is_the_users_mistake(
    address: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    config = load_config(None, [Override("cluster.address", address, "--set")])
    with pytest.raises(InputError) as caught:
        connect(config)
    assert caught.value.place == "cluster.address"
    assert reason in str(caught.value.value)


def test_without_an_address_a_cluster_on_this_machine_is_not_joined() -> None:
    with cluster_of({}) as (cluster, _):
        running = cluster.address
        done = subprocess.run(
            [sys.executable, "-c", CONNECT], capture_output=True, text=True, timeout=120, check=True
        )
    started = done.stdout.strip()
    assert started
    assert started != running
