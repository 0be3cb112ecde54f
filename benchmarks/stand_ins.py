"""Substitutes for a cluster's workers in `benchmarks.cluster`, importable by Ray's processes."""

import time
from typing import Any

from ray import tune

from recsys.search.tuning.messages import Report, as_result

METRICS = (
    "val_ndcg_at_10",
    "val_hit_rate_at_10",
    "val_mrr_at_10",
    "val_recall_at_10",
    "train_loss",
    "samples_per_second",
)


class TrivialRunner(tune.Trainable):
    """A trial that reports epochs and trains nothing."""

    def setup(self, config: dict[str, Any]) -> None:
        """Start a trial."""
        self._epoch, self._number, self._started = 0, config["number"], time.time()

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Start another trial."""
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Return a report of an epoch, as `recsys.search.tuning.trainable` does."""
        self._epoch += 1
        value = (self._number * 37 % 101 + self._epoch) / 200
        metrics = dict.fromkeys(METRICS, value) | {"train_seconds": 0.01, "rank_seconds": 0.01}
        is_last = self._epoch == self.config["epochs"]
        return as_result(Report(self._epoch, self._epoch, True, metrics, is_last, self._started))


class Workers:
    """Substitute for all workers, in one process: trials by their number."""

    def __init__(self, n_epochs: int) -> None:
        self._n_epochs, self._trials = n_epochs, dict[int, TrivialRunner]()

    def call(self, number: int, name: str, *arguments: Any, **named: Any) -> Any:
        """Do the work of the trial's worker."""
        if name == "__init__":
            self._trials[number] = TrivialRunner(
                **named | {"config": named["config"] | {"epochs": self._n_epochs}}
            )
            return None
        if name == "reset":
            arguments = (arguments[0] | {"epochs": self._n_epochs}, *arguments[1:])
        return (
            getattr(self._trials[number], name)(*arguments, **named)
            if not name.startswith("__ray_")
            else None
        )


class StandIn:
    """Substitute for an actor's class, for an actor and for its methods, as Tune uses each."""

    def __init__(self, workers: Any, number: int, name: str = "__init__") -> None:
        self._workers, self._number, self._name = workers, number, name

    def __getattr__(self, name: str) -> "StandIn":
        return StandIn(self._workers, self._number, name)

    def remote(self, *arguments: Any, **named: Any) -> Any:
        """Start the actor, or call its method."""
        future = self._workers.call.remote(self._number, self._name, *arguments, **named)
        return StandIn(self._workers, self._number) if self._name == "__init__" else future
