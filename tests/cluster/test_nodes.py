"""Searches on a cluster of several nodes: placement of trials, cost of the data, two at once."""

import itertools
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from ray._private.internal_api import node_stats

from recsys.config.schema import Config, replace_values
from recsys.data.interactions import Interactions
from recsys.data.preprocessing import pipeline
from recsys.data.preprocessing.tasks import run_tasks
from recsys.data.processed import load
from recsys.final import placement
from recsys.final.choose import Choice
from recsys.final.train import Trained, train_for_test
from recsys.search import session
from recsys.search.plan import make_plan
from recsys.search.record.study_folder import StudyFolder
from recsys.search.space.space_file import parse_space
from recsys.search.tuning import run
from recsys.search.tuning.trainable import TrialRunner
from tests.cluster.nodes import (
    GIVE_UP_SECONDS,
    STORE_BYTES,
    NotingRunner,
    cluster_of,
    drivers,
    names,
    notes,
    this_node,
    wait_until,
)
from tests.small_search import SPACE, search

NODES: dict[str, dict[str, Any]] = {
    "a": {"num_cpus": 2, "resources": {"big": 1}},
    "b": {"num_cpus": 2, "resources": {"big": 1}},
    "c": {"num_cpus": 2, "num_gpus": 1},
}


@pytest.fixture(scope="module")
def two_drivers() -> Iterator[ProcessPoolExecutor]:
    with cluster_of(NODES) as (cluster, _), drivers(cluster.address) as pool:
        yield pool


def search_on(
    runner: type[TrialRunner], ratings: Path, folder: Path, resources: dict[str, object]
) -> tuple[list[str], Path]:
    """Search in a driver with these resources; return the trials' states and the study's folder."""
    run.TrialRunner = runner  # type: ignore[attr-defined]
    values = {f"resources.{name}": value for name, value in resources.items()}
    values |= {"study.n_trials": 4, "study.max_concurrent": None, "study.grace_period": 3}
    searched = search(ratings, folder, values)
    return [summary.state for summary in searched.outcome.summaries], searched.folder


def test_trials_run_on_nodes_with_the_requested_resources(
    two_drivers: ProcessPoolExecutor, ratings: Path, tmp_path: Path
) -> None:
    asked: dict[str, object] = {"custom": {"big": 0.5, "name": "b"}}
    states, study_folder = two_drivers.submit(
        search_on, NotingRunner, ratings, tmp_path, asked
    ).result(GIVE_UP_SECONDS)
    assert states == ["complete"] * 4
    assert {(number, node) for number, _, node, _, _ in notes(study_folder)} == {
        (number, "b") for number in range(4)
    }


class TwoSearchesRunner(NotingRunner):
    """Worker whose first step waits until two trials of each of two searches have started."""

    def step(self) -> dict[str, Any]:
        started = self._folder.parents[3] / "started"
        (started / f"{self._folder.parents[2].name}-{self.config['number']}").touch()
        wait_until(
            lambda: all(len(list(started.glob(f"{search}-*"))) >= 2 for search in ("gpus", "cpus"))
        )
        return super().step()


def test_a_search_on_gpus_beside_one_on_cpus(
    two_drivers: ProcessPoolExecutor, ratings: Path, tmp_path: Path
) -> None:
    (tmp_path / "started").mkdir()
    on_gpus = two_drivers.submit(
        search_on, TwoSearchesRunner, ratings, tmp_path / "gpus", {"cpu": 0.5, "gpu": 0.5}
    )
    on_cpus = two_drivers.submit(
        search_on, TwoSearchesRunner, ratings, tmp_path / "cpus", {"custom": {"name": "a"}}
    )
    for searching, node, device in ((on_gpus, "c", "0"), (on_cpus, "a", "")):
        states, study_folder = searching.result(GIVE_UP_SECONDS)
        assert states == ["complete"] * 4
        assert {(where, devices) for _, _, where, _, devices in notes(study_folder)} == {
            (node, device)
        }


class TwoNodesRunner(NotingRunner):
    """Worker whose first step waits until trials have started on two nodes."""

    n_nodes = 2

    def step(self) -> dict[str, Any]:
        started = self._folder.parents[3] / "started"
        (started / f"{this_node()}-{self.config['number']}").touch()
        wait_until(lambda: len({mark.name[0] for mark in started.iterdir()}) == self.n_nodes)
        return super().step()


class AllNodesRunner(TwoNodesRunner):
    """The same with all of `NODES`: otherwise the first workers might run all trials."""

    n_nodes = len(NODES)


def test_a_search_uses_a_node_that_joins_the_cluster(ratings: Path, tmp_path: Path) -> None:
    (tmp_path / "started").mkdir()
    with cluster_of({"a": {"num_cpus": 1}}) as (cluster, _), drivers(cluster.address) as pool:
        searching = pool.submit(search_on, TwoNodesRunner, ratings, tmp_path / "joined", {})
        wait_until(lambda: list((tmp_path / "started").iterdir()) != [])
        cluster.add_node(
            num_cpus=1,
            labels={"name": "b"},
            object_store_memory=STORE_BYTES,
            include_dashboard=False,
        )
        states, study_folder = searching.result(GIVE_UP_SECONDS)
    assert states == ["complete"] * 4
    assert {node for _, _, node, _, _ in notes(study_folder)} == {"a", "b"}


def train_after_both_started(
    config: Config, data: Interactions, seed: int, n_epochs: int | None
) -> Trained:
    """Store the node, wait until two seeds have started, and train."""
    started = Path(config.data.source).parent / "seeds"
    (started / f"{seed} {this_node()}").touch()
    wait_until(lambda: len(list(started.iterdir())) == 2)
    return train_for_test(config, data, seed, n_epochs)


def train_two_seeds(ratings: Path, folder: Path) -> tuple[list[Trained], list[Trained]]:
    """Run final trainings in a driver: on a node with the label `name: b`, and in this process."""
    source = folder / "ratings.csv"
    source.write_bytes(ratings.read_bytes())
    (folder / "seeds").mkdir()
    values: dict[str, object] = {
        "data.source": str(source),
        "resources.custom": {"name": "b"},
        "training.batch_size": 64,
    }
    config = replace_values(Config(), values)
    data = load(pipeline.prepare(config, folder), "test", negatives=False)
    choices = [Choice("c", config, 3, seed, None, None) for seed in (4, 5)]
    remote = list(placement.run(train_after_both_started, choices, data))
    return remote, [train_for_test(config, data, seed, 3) for seed in (4, 5)]


def test_final_trainings_run_side_by_side_on_nodes_with_the_requested_resources(
    two_drivers: ProcessPoolExecutor, ratings: Path, tmp_path: Path
) -> None:
    remote, local = two_drivers.submit(train_two_seeds, ratings, tmp_path).result(GIVE_UP_SECONDS)
    assert {mark.name for mark in (tmp_path / "seeds").iterdir()} == {"4 b", "5 b"}
    assert [trained.n_epochs for trained in remote] == [3, 3]
    for trained, expected in zip(remote, local, strict=True):
        assert trained.metrics == pytest.approx(expected.metrics)
        torch.testing.assert_close(trained.model.state_dict(), expected.model.state_dict())


def created_bytes() -> dict[str, int]:
    """Return the bytes that each node's object store has received, from other nodes too."""
    found = {}
    for node in ray.nodes():  # type: ignore[no-untyped-call]
        stats = node_stats(
            node["NodeManagerAddress"], node["NodeManagerPort"], include_memory_info=False
        )  # type: ignore[no-untyped-call]
        found[names()[node["NodeID"]]] = stats.store_stats.cumulative_created_bytes
    return found


def search_with_much_data(ratings: Path, folder: Path) -> tuple[dict[str, int], int, Path]:
    """Run 12 trials on three nodes in a driver.

    Returns:
        The bytes that each node's store received, the size of the data, the study's folder.
    """
    run.TrialRunner = AllNodesRunner  # type: ignore[attr-defined]
    values: dict[str, object] = {
        "data.source": str(ratings),
        "data.n_negatives": 5_000,
        "training.resample_negatives": False,
        "training.max_epochs": 2,
        "study.n_trials": 12,
        "study.grace_period": 2,
    }
    config = replace_values(Config(), values)
    processed = pipeline.prepare(config, folder)
    plan = make_plan(
        StudyFolder.find(folder, "s"), folder, config, parse_space(SPACE, "space.yaml"), processed
    )
    assert plan.slots.count() == 6
    before = created_bytes()
    session.run(plan)
    received = {name: size - before[name] for name, size in created_bytes().items()}
    return received, processed.manifest.n_train * 5_000 * 4, plan.study.path


def test_the_data_reach_each_node_once(
    two_drivers: ProcessPoolExecutor, ratings: Path, tmp_path: Path
) -> None:
    (tmp_path / "started").mkdir()
    received, size, study_folder = two_drivers.submit(
        search_with_much_data, ratings, tmp_path / "much"
    ).result(GIVE_UP_SECONDS)
    trials = {(number, node) for number, _, node, _, _ in notes(study_folder)}
    assert len({number for number, _ in trials}) == 12
    assert {node for _, node in trials} == set(NODES)
    assert {name: n_bytes // size for name, n_bytes in received.items()} == dict.fromkeys(
        ("head", *NODES), 1
    )


def nodes_of_tasks(ratings: Path, folder: Path) -> list[str]:
    """Prepare data in a driver, then run 6 tasks that wait for each other; return their nodes."""
    pipeline.prepare(
        replace_values(Config(), {"data.source": str(ratings)}), folder / "experiments"
    )
    started = folder / "started"
    started.mkdir()

    def task(number: int) -> str:
        (started / str(number)).touch()
        wait_until(lambda: len(list(started.iterdir())) == 6)
        return this_node()

    return run_tasks(6, task)


def test_preprocessing_runs_across_the_nodes(
    two_drivers: ProcessPoolExecutor, ratings: Path, tmp_path: Path
) -> None:
    nodes = two_drivers.submit(nodes_of_tasks, ratings, tmp_path).result(GIVE_UP_SECONDS)
    assert Counter(nodes) == {"a": 2, "b": 2, "c": 2}


def most_at_once(ratings: Path, folder: Path, n_cpus: int) -> int:
    """Prepare data in a driver with `n_cpus`; return how many of 6 tasks then ran at a time."""
    config = replace_values(
        Config(), {"data.source": str(ratings), "resources.preprocess_cpus": n_cpus}
    )
    pipeline.prepare(config, folder / "experiments")
    begun, running = folder / "begun", folder / "running"
    begun.mkdir()
    running.mkdir()

    def task(number: int) -> int:
        (begun / str(number)).touch()
        mark = running / str(number)
        mark.touch()
        wait_until(lambda: len(list(begun.iterdir())) >= n_cpus)
        seen = max(len(list(running.iterdir())) for _ in itertools.repeat(None, 20_000))
        mark.unlink()
        return seen

    seen: list[int] = run_tasks(6, task)
    return max(seen)


def test_preprocessing_uses_no_more_than_its_cpus(
    two_drivers: ProcessPoolExecutor, ratings: Path, tmp_path: Path
) -> None:
    assert two_drivers.submit(most_at_once, ratings, tmp_path, 2).result(GIVE_UP_SECONDS) == 2
