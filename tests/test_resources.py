import json
import time
from pathlib import Path
from typing import Any

import pytest
import ray

from recsys.cluster.autoscaling import HEAD_FILE
from recsys.cluster.resources import Slots
from recsys.config.schema import Config, replace_values


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A home folder without the configuration of an autoscaler."""
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def autoscale(home: Path, max_workers: int, **node_types: tuple[dict[str, float], int]) -> None:
    """Write the file of `ray up` for a head without CPUs; a type without a GPU has no labels."""
    types: dict[str, dict[str, Any]] = {
        name: {"resources": resources, "max_workers": n}
        | ({"labels": {"kind": name}} if "GPU" in resources else {})
        for name, (resources, n) in node_types.items()
    }
    head = {"resources": {"CPU": 64.0, "GPU": 8.0}, "max_workers": 0}
    tree = {
        "max_workers": max_workers,
        "head_node_type": "head",
        "available_node_types": {"head": head, **types},
    }
    (home / HEAD_FILE).write_text(json.dumps(tree))


def ask(monkeypatch: pytest.MonkeyPatch, nodes: list[dict[str, float]], **resources: object) -> int:
    """Return the slots of a simulated cluster; node 0 is in zone 0, and so on."""
    alive: list[dict[str, Any]] = [
        {"Alive": True, "Resources": node, "Labels": {"zone": str(zone)}}
        for zone, node in enumerate(nodes)
    ]
    dead = {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}, "Labels": {"zone": "dead"}}
    monkeypatch.setattr(ray, "nodes", lambda: [*alive, dead])
    return Slots(
        replace_values(Config(), {f"resources.{name}": value for name, value in resources.items()})
    ).count()


@pytest.mark.parametrize(
    ("nodes", "resources", "expected"),
    [
        ([{"CPU": 2.0}], {}, 2),
        ([{"CPU": 4.0}, {"CPU": 3.0}], {"cpu": 2.0}, 3),  # a trial runs on one node
        ([{"CPU": 1.0}], {"cpu": 0.1}, 10),  # 1 // 0.1 would be 9
        ([{"CPU": 3.0}], {"cpu": 0.3}, 10),
        ([{"CPU": 2.0, "GPU": 2.0}], {"cpu": 0.5, "gpu": 0.5}, 4),
        ([{"CPU": 8.0, "GPU": 2.0}], {"gpu": 0.4}, 4),  # 2 on each GPU; 2 / 0.4 would be 5
        ([{"CPU": 8.0, "GPU": 2.0}], {"gpu": 1.0}, 2),
        ([{"CPU": 8.0, "GPU": 5.0}], {"gpu": 2.0}, 2),
        ([{"CPU": 1.0, "GPU": 4.0}], {"gpu": 1.0}, 1),
        # A node without a GPU adds no slot.
        ([{"CPU": 8.0}, {"CPU": 2.0, "GPU": 1.0}], {"gpu": 0.5}, 2),
        ([{"CPU": 8.0}, {"CPU": 8.0, "big": 3.0}], {"custom": {"big": 1}}, 3),
        ([{"CPU": 8.0}, {"CPU": 2.0}], {"custom": {"zone": "1"}}, 2),
        (
            [{"CPU": 8.0, "big": 1.0}, {"CPU": 2.0, "big": 1.0}],
            {"custom": {"zone": "1", "big": 0.5}},
            2,
        ),
    ],
)
def test_slots(
    monkeypatch: pytest.MonkeyPatch,
    nodes: list[dict[str, float]],
    resources: dict[str, Any],
    expected: int,
) -> None:
    assert ask(monkeypatch, nodes, **resources) == expected


def test_slots_are_bounded_by_the_config(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": 8.0}, "Labels": {}}]
    )
    assert Slots(replace_values(Config(), {"study.max_concurrent": 3})).count() == 3
    assert Slots(replace_values(Config(), {"study.max_concurrent": 30})).count() == 8


def test_slots_follow_the_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    now, nodes = 100.0, [{"Alive": True, "Resources": {"CPU": 2.0}, "Labels": {}}]
    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    slots = Slots(Config())
    assert slots.count() == 2
    nodes = [*nodes, {"Alive": True, "Resources": {"CPU": 3.0}, "Labels": {}}]
    now = 104.9
    assert slots.count() == 2  # Ray is asked every 5 s, not with each result of a trial
    now = 105.0
    assert (slots.count(), slots.most) == (5, 5)
    nodes, now = nodes[:1], 110.0
    assert (slots.count(), slots.most) == (2, 5)
    nodes, now = [], 115.0
    assert slots.count() == 1  # for the trial that waits for a node


@pytest.mark.parametrize(
    ("nodes", "resources", "message"),
    [
        (
            [{"CPU": 2.0}],
            {"gpu": 1.0},
            r"resources\.gpu: must be at most what one node has, 0, but got 1\. "
            r"Ask for less, or join",
        ),
        (
            [{"CPU": 2.0}, {"CPU": 4.0}],
            {"cpu": 5.0},
            r"resources\.cpu: must be at most what one node has, 4, but got 5\. Ask for",
        ),
        (
            [{"CPU": 8.0, "GPU": 4.0}],
            {"gpu": 1.5},
            r"resources\.gpu: must be whole above 1, but got 1\.5\. Ask for 1 or 2\.",
        ),
        (
            [{"CPU": 8.0, "big": 1.0}],
            {"custom": {"big": 2}},
            r"resources\.custom: must be at most what one node has, 1 of big, but got 2\. "
            r"Ask for less, or join",
        ),
        (
            [{"CPU": 8.0}],
            {"custom": {"big": 0.5}},
            r"resources\.custom: must be .* has, 0 of big, but got 0\.5\.",
        ),
        (
            [{"CPU": 8.0}, {"CPU": 8.0}],
            {"custom": {"zone": "dead"}},
            r"resources\.custom: zone must be one of 0, 1, but got 'dead'\. "
            r"Change it, or join a cluster with such nodes",
        ),
        (
            [{"CPU": 8.0}],
            {"custom": {"market": "spot"}},
            r"resources\.custom: market must be left out, as no node has this label, "
            r"but got 'spot'\. Change it, or",
        ),
        (
            [{"CPU": 8.0}, {"CPU": 1.0, "GPU": 1.0}],
            {"cpu": 2.0, "gpu": 1.0, "custom": {"zone": "1"}},
            r"resources: must be what one node has together, but got CPU 2\.0, GPU 1\.0, zone 1\. "
            r"Ask for less, or",
        ),
    ],
)
def test_requests_that_no_node_can_satisfy(
    monkeypatch: pytest.MonkeyPatch,
    nodes: list[dict[str, float]],
    resources: dict[str, Any],
    message: str,
) -> None:
    with pytest.raises(ValueError, match=message):
        ask(monkeypatch, nodes, **resources)


CPU_AND_GPU: dict[str, tuple[dict[str, float], int]] = {
    "cpu_worker": ({"CPU": 8.0}, 3),
    "gpu_worker": ({"CPU": 4.0, "GPU": 1.0}, 2),
}


@pytest.mark.parametrize(
    ("max_workers", "resources", "expected"),
    [
        (10, {}, 3 * 8 + 2 * 4),
        (4, {}, 3 * 8 + 4),  # 4 workers of all types together, the largest first
        (10, {"gpu": 0.25}, 2 * 4),
        (1, {"gpu": 0.5}, 2),
        (10, {"cpu": 8.0}, 3),
        (10, {"custom": {"kind": "gpu_worker"}}, 2 * 4),
    ],
)
def test_slots_on_nodes_that_the_autoscaler_can_add_count(
    monkeypatch: pytest.MonkeyPatch,
    home: Path,
    max_workers: int,
    resources: dict[str, Any],
    expected: int,
) -> None:
    autoscale(home, max_workers, **CPU_AND_GPU)
    assert ask(monkeypatch, [{"CPU": 0.0}], **resources) == expected
    # A running worker is one of the workers that the file allows.
    nodes = [{"CPU": 0.0}, {"CPU": 8.0, "GPU": 1.0}]
    assert ask(monkeypatch, nodes, **resources) == expected


def test_requests_that_no_node_type_can_satisfy(
    monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    autoscale(home, 10, **CPU_AND_GPU)
    with pytest.raises(
        ValueError, match=r"resources\.cpu: must be at most what one node has, 8, but got 9\."
    ):
        ask(monkeypatch, [{"CPU": 0.0}], cpu=9.0)
    with pytest.raises(
        ValueError, match=r"resources\.gpu: must be at most what one node has, 1, but got 2\."
    ):
        ask(monkeypatch, [{"CPU": 0.0}], gpu=2.0)
