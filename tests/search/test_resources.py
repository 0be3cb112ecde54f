from typing import Any

import pytest
import ray

from recsys.config import Config, replace_values
from recsys.search.resources import slots


def ask(monkeypatch: pytest.MonkeyPatch, nodes: list[dict[str, float]], **resources: float) -> int:
    """Slots on a cluster of these nodes, which Ray would have to own machines to tell of."""
    told: list[dict[str, Any]] = [{"Alive": True, "Resources": node} for node in nodes]
    monkeypatch.setattr(ray, "nodes", lambda: [*told, {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}}])
    return slots(replace_values(Config(), {f"resources.{name}": value for name, value in resources.items()}))


@pytest.mark.parametrize(
    ("nodes", "resources", "expected"),
    [
        ([{"CPU": 2.0}], {}, 2),
        ([{"CPU": 4.0}, {"CPU": 3.0}], {"cpu": 2.0}, 3),  # no trial lies across nodes
        ([{"CPU": 1.0}], {"cpu": 0.1}, 10),  # and not 9, as 1 // 0.1 says
        ([{"CPU": 3.0}], {"cpu": 0.3}, 10),
        ([{"CPU": 2.0, "GPU": 2.0}], {"cpu": 0.5, "gpu": 0.5}, 4),
        ([{"CPU": 8.0, "GPU": 2.0}], {"gpu": 0.4}, 4),  # 2 on each GPU; 2 / 0.4 would be 5
        ([{"CPU": 8.0, "GPU": 2.0}], {"gpu": 1.0}, 2),
        ([{"CPU": 8.0, "GPU": 5.0}], {"gpu": 2.0}, 2),
        ([{"CPU": 1.0, "GPU": 4.0}], {"gpu": 1.0}, 1),
        ([{"CPU": 8.0}, {"CPU": 2.0, "GPU": 1.0}], {"gpu": 0.5}, 2),  # a node without GPU does not help
    ],
)
def test_slots(
    monkeypatch: pytest.MonkeyPatch, nodes: list[dict[str, float]], resources: dict[str, float], expected: int
) -> None:
    assert ask(monkeypatch, nodes, **resources) == expected


def test_slots_are_bounded_by_the_config(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": 8.0}}])
    assert slots(replace_values(Config(), {"study.max_concurrent": 3})) == 3
    assert slots(replace_values(Config(), {"study.max_concurrent": 30})) == 8


@pytest.mark.parametrize(
    ("nodes", "resources", "message"),
    [
        (
            [{"CPU": 2.0}],
            {"gpu": 1.0},
            r"resources\.gpu: must be at most what one node has, 0, but got 1\. Ask for less with --gpu",
        ),
        (
            [{"CPU": 2.0}, {"CPU": 4.0}],
            {"cpu": 5.0},
            r"resources\.cpu: must be at most what one node has, 4, but got 5\. Ask for",
        ),
        ([{"CPU": 8.0, "GPU": 4.0}], {"gpu": 1.5}, r"resources\.gpu: must be whole above 1, but got 1\.5\. Ask for 1 or 2 with"),
    ],
)
def test_requests_that_nobody_can_meet(
    monkeypatch: pytest.MonkeyPatch, nodes: list[dict[str, float]], resources: dict[str, float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ask(monkeypatch, nodes, **resources)
