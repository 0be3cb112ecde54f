"""A node that ends after a notice, like a spot machine."""

import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from ray._private.node import Node
from ray._raylet import GcsClient  # type: ignore[attr-defined]
from ray.core.generated.autoscaler_pb2 import DrainNodeReason  # type: ignore[attr-defined]

from recsys.search.record.summaries import TrialSummary
from recsys.search.tuning import run
from tests.cluster.nodes import (
    GIVE_UP_SECONDS,
    NotingRunner,
    cluster_of,
    drivers,
    notes,
    wait_until,
)
from tests.small_search import search

NODES: dict[str, dict[str, Any]] = {"preempted": {"num_cpus": 1}, "kept": {"num_cpus": 1}}
N_EPOCHS, SAVED_EPOCHS = 80, 10
NOTICE_SECONDS = 1.0


class SavingRunner(NotingRunner):
    """Worker that saves a checkpoint after every tenth epoch, and adds a line for each epoch."""

    def step(self) -> dict[str, Any]:
        self._next_save = 0.0 if (self.iteration + 1) % SAVED_EPOCHS == 0 else float("inf")
        return super().step()


@pytest.fixture
def cluster() -> Iterator[tuple[Any, dict[str, Node], ProcessPoolExecutor]]:
    with cluster_of(NODES) as (cluster, nodes), drivers(cluster.address) as pool:
        yield cluster, nodes, pool


def search_with_saves(ratings: Path, folder: Path) -> list[TrialSummary]:
    """Run 3 trials in a driver, with one CPU and one retry each; return their summaries."""
    run.TrialRunner = SavingRunner  # type: ignore[attr-defined]
    epochs = {
        "training.max_epochs": N_EPOCHS,
        "study.grace_period": N_EPOCHS,
        "training.patience": None,
        "training.batch_size": 8,
    }
    searched = search(ratings, folder, {"study.n_trials": 3, "resources.max_failures": 1, **epochs})
    return searched.outcome.summaries


def test_a_preempted_node_costs_only_unsaved_epochs(
    cluster: tuple[Any, dict[str, Node], ProcessPoolExecutor], ratings: Path, tmp_path: Path
) -> None:
    whole, nodes, pool = cluster
    study_folder = tmp_path / "studies" / "s"
    searching = pool.submit(search_with_saves, ratings, tmp_path)
    wait_until(
        lambda: (
            (study_folder / "notes").exists()
            and any(n[1:3] == (SAVED_EPOCHS + 2, "preempted") for n in notes(study_folder))
        )
    )

    # A cloud sends the notice with the time at which the machine ends.
    deadline = time.time() + NOTICE_SECONDS
    reason = DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    accepted, _ = GcsClient(address=whole.address).drain_node(
        nodes["preempted"].node_id, reason, "spot", int(deadline * 1000)
    )
    assert accepted
    wait_until(lambda: time.time() > deadline)
    whole.remove_node(nodes["preempted"], allow_graceful=False)

    summaries = searching.result(GIVE_UP_SECONDS)
    assert [(summary.state, summary.epochs) for summary in summaries] == [
        ("complete", N_EPOCHS)
    ] * 3
    epochs: dict[tuple[int, str], list[int]] = {}
    for number, epoch, node, _, _ in notes(study_folder):
        epochs.setdefault((number, node), []).append(epoch)
    (moved,) = {number for number, node in epochs if node == "preempted"} & {
        number for number, node in epochs if node == "kept"
    }
    before, after = epochs[moved, "preempted"], epochs[moved, "kept"]
    # The retry resumes from the last checkpoint, whose epoch it reports again.
    assert after == list(range(after[0], N_EPOCHS + 1))
    assert after[0] % SAVED_EPOCHS == 0
    assert before[-1] - SAVED_EPOCHS < after[0] <= before[-1] + 1
