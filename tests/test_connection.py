"""Addresses of a Ray cluster that no cluster can have."""

import pytest
import ray

from recsys.cluster.connection import connect
from recsys.config.files import Override, load_config
from recsys.errors import InputError


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
