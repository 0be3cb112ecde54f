"""A node that is taken back after a notice, as a spot machine is."""

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

NODES: dict[str, dict[str, Any]] = {"taken": {"num_cpus": 1}, "kept": {"num_cpus": 1}}
N_EPOCHS, SAVED_EPOCHS = 80, 10
NOTICE_SECONDS = 1.0


class SavingRunner(NotingRunner):
    """A worker that saves every tenth epoch, and notes each."""

    def step(self) -> dict[str, Any]:
        self._save_from = 0.0 if (self.iteration + 1) % SAVED_EPOCHS == 0 else float("inf")
        return super().step()


@pytest.fixture
def cluster() -> Iterator[tuple[Any, dict[str, Node], ProcessPoolExecutor]]:
    with cluster_of(NODES) as (cluster, nodes), drivers(cluster.address) as pool:
        yield cluster, nodes, pool


def search_with_saves(ratings: Path, folder: Path) -> list[TrialSummary]:
    """In a driver: 3 trials, a CPU each, which are tried again once."""
    run.TrialRunner = SavingRunner  # type: ignore[attr-defined]
    epochs = {
        "training.max_epochs": N_EPOCHS,
        "study.grace_period": N_EPOCHS,
        "training.batch_size": 8,
    }
    searched = search(ratings, folder, {"study.n_trials": 3, "resources.max_failures": 1, **epochs})
    return searched.outcome.summaries


def test_a_node_taken_back_costs_what_was_not_saved(
    cluster: tuple[Any, dict[str, Node], ProcessPoolExecutor], ratings: Path, tmp_path: Path
) -> None:
    whole, nodes, pool = cluster
    study_folder = tmp_path / "studies" / "s"
    searching = pool.submit(search_with_saves, ratings, tmp_path)
    wait_until(
        lambda: (
            (study_folder / "notes").exists()
            and any(n[1:3] == (SAVED_EPOCHS + 2, "taken") for n in notes(study_folder))
        )
    )

    # As a cloud does: the notice, with the time at which the power is cut.
    deadline = time.time() + NOTICE_SECONDS
    reason = DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    accepted, _ = GcsClient(address=whole.address).drain_node(
        nodes["taken"].node_id, reason, "spot", int(deadline * 1000)
    )
    assert accepted
    wait_until(lambda: time.time() > deadline)
    whole.remove_node(nodes["taken"], allow_graceful=False)

    summaries = searching.result(GIVE_UP_SECONDS)
    assert [(summary.state, summary.epochs) for summary in summaries] == [
        ("complete", N_EPOCHS)
    ] * 3
    epochs: dict[tuple[int, str], list[int]] = {}
    for number, epoch, node, _, _ in notes(study_folder):
        epochs.setdefault((number, node), []).append(epoch)
    (moved,) = {number for number, node in epochs if node == "taken"} & {
        number for number, node in epochs if node == "kept"
    }
    before, after = epochs[moved, "taken"], epochs[moved, "kept"]
    # It goes on after what was saved last, which it tells again.
    assert after == list(range(after[0], N_EPOCHS + 1))
    assert after[0] % SAVED_EPOCHS == 0
    assert before[-1] - SAVED_EPOCHS < after[0] <= before[-1] + 1
