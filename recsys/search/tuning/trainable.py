"""Trials on a worker: Tune starts, steps and stops them; `training.fit` trains.

A worker process runs one trial after another, so that torch is imported once. The arrays of the
data are mapped from the node's object store and never copied.
"""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from ray import tune
from safetensors import SafetensorError

from recsys.cluster.shared_paths import require_on_this_node
from recsys.config.schema import Config
from recsys.data.interactions import Interactions
from recsys.evaluation.evaluate import evaluate
from recsys.evaluation.scorers import scorer_of
from recsys.search.record.summaries import OnAllUsers
from recsys.search.tuning.messages import DiskFull, Diverged, Message, Report, as_result
from recsys.storage.path_errors import disk_full_reason
from recsys.storage.s3 import delete_local_copy, fetch, url_of
from recsys.training.checkpoint import TrainingState
from recsys.training.fit import Epoch, fit

CHECKPOINT = "checkpoint.safetensors"
WEIGHTS = "weights.safetensors"
CHECKPOINT_SECONDS = 30.0
"""Least time between two checkpoints of a trial."""
CHECKPOINT_SHARE = 0.05
"""Largest share of a trial's time that checkpoints may take."""


class TrialRunner(tune.Trainable):
    """Training of one config, which reports each step.

    A trial's Tune config holds `number`, `seed`, `config`, the complete config as JSON, and
    `pruning_steps`, the steps at which the trial may be pruned.
    """

    def setup(  # type: ignore[override]
        self,
        config: dict[str, Any],
        data: list[Any],
        folder: str,
        gpu_device: str,
    ) -> None:
        """Start a trial, or resume it from its checkpoint.

        Args:
            config: the Tune config of the trial.
            data: one reference to the `Interactions`, in a list so that Ray passes the reference
                and not the arrays.
            folder: the folder in which each trial of the study has a folder.
            gpu_device: the torch device of a trial that has a GPU.
        """
        if ray.get_runtime_context().get_actor_id() is not None:
            # Ray ends a busy worker by SIGTERM; its own handler would print a traceback.
            signal.signal(signal.SIGTERM, lambda number, _: os._exit(128 + number))
        self._data: Interactions = ray.get(data[0])
        self._folder = Path(folder)
        self._trial_folder = self._folder / str(config["number"])
        require_on_this_node(self._folder.parent)
        self._device = gpu_device if ray.get_gpu_ids() else "cpu"
        self._next_save = self._started = 0.0
        self._start(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Start another trial in the same process, on the same data."""
        self._start(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Train and rank one segment, and return a message in the form that Tune carries."""
        return as_result(self._train_segment())

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Do nothing: a trial has a checkpoint of its own, which a resumed search reads too."""

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        """Do nothing: Tune has no checkpoint."""

    def _train_segment(self) -> Message:
        on_all_users, rank_all_seconds = None, 0.0
        try:
            epoch = next(self._epochs)
            if epoch.is_last:
                start = time.monotonic()
                on_all_users = self._rank_all_users(epoch.state)
                rank_all_seconds = time.monotonic() - start
        except FloatingPointError as error:
            return Diverged(str(error))
        checkpoint = None
        try:
            if epoch.is_last or epoch.step in self._pruning_steps:
                self._save_best(epoch.state)
            if not epoch.is_last and time.monotonic() >= self._next_save:
                checkpoint = self._save(epoch.state, epoch.step)
        except (OSError, SafetensorError) as error:
            if (reason := disk_full_reason(error)) is None:
                raise
            return DiskFull(reason)
        return Report(
            epoch=epoch.epoch,
            step=epoch.step,
            is_whole_epoch=epoch.whole,
            metrics=epoch.metrics,
            is_last=epoch.is_last,
            started=self._started,
            on_all_users=on_all_users,
            rank_all_seconds=rank_all_seconds,
            checkpoint=checkpoint,
        )

    def _start(self, tune_config: dict[str, Any]) -> None:
        self._config = config = Config.model_validate_json(tune_config["config"])
        self._pruning_steps = tune_config["pruning_steps"]
        torch.set_num_threads(max(1, int(config.resources.cpu)))
        delete_local_copy(self._trial_folder)  # the folder of the previous trial
        self._trial_folder = self._folder / str(tune_config["number"])
        self._checkpoint = self._trial_folder / CHECKPOINT
        sizes = self._data.n_users, self._data.n_items
        fetch(self._checkpoint)
        state = None
        if self._checkpoint.is_file():
            state = TrainingState.load(self._checkpoint, config, *sizes, self._device)
        self._epochs: Iterator[Epoch] = fit(
            config, self._data, tune_config["seed"], device=self._device, state=state
        )
        self._next_save = time.monotonic() + CHECKPOINT_SECONDS
        self._started = time.time()
        self._saved_epoch: int | None = None

    def _rank_all_users(self, state: TrainingState) -> OnAllUsers | None:
        """Return the value of the best weights on all users, None if every ranking is of all.

        The best of many values on one sample of the users is partly luck.
        """
        held_out, limit = self._data.held_out, self._config.evaluation.user_limit
        if limit is None or held_out is None or len(np.unique(held_out.user)) <= limit:
            return None
        assert state.best_epoch is not None
        state.restore_best()
        values = evaluate(scorer_of(state.model, self._data), self._data, self._config)
        value, error = (
            values.get(name.removeprefix("val_"))
            for name in (self._config.metric_name, self._config.error_name)
        )
        assert value is not None
        return OnAllUsers(value, error, state.best_epoch)

    def _save_best(self, state: TrainingState) -> None:
        """Write the best weights, before the report after which Tune may stop this process."""
        if state.best_epoch != self._saved_epoch:
            state.save_best(self._trial_folder / WEIGHTS, self._config)
            self._saved_epoch = state.best_epoch

    def _save(self, state: TrainingState, step: int) -> str | None:
        """Write a checkpoint.

        Returns:
            The file's name in S3, where the driver makes it the trial's checkpoint once the record
            with this step is uploaded; None on disk, where it is the checkpoint at once.
        """
        start, in_s3 = time.monotonic(), url_of(self._folder) is not None
        path = self._trial_folder / f"{CHECKPOINT}.{step}" if in_s3 else self._checkpoint
        state.save(path)
        end = time.monotonic()
        self._next_save = end + max(CHECKPOINT_SECONDS, (end - start) / CHECKPOINT_SHARE)
        if not in_s3:
            return None
        delete_local_copy(path)
        return path.name
