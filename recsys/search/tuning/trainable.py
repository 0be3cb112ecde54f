"""What runs on a worker: one trial after another, each its own config, on data that all of a node share.

Stands between Tune, which starts, steps and stops it, and `training.fit`. The worker process is used again for the next trial, so
that torch is imported once; the arrays of the data are mapped from the object store and never copied.
"""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray
import torch
from ray import tune
from safetensors import SafetensorError

from recsys.config.schema import Config
from recsys.storage.files import no_room, require_seen
from recsys.storage.s3 import fetch, forget, url_of
from recsys.training.checkpoint import TrainingState
from recsys.training.fit import Epoch, fit

CHECKPOINT = "checkpoint.safetensors"
WEIGHTS = "weights.safetensors"
CHECKPOINT_SECONDS = 30.0
"""A trial is saved at most this often."""
CHECKPOINT_SHARE = 0.05
"""Saving takes at most this share of a trial's time."""


class TrialRunner(tune.Trainable):
    """Trains one config and reports an epoch a step, or a part of a long epoch.

    A trial's Tune config holds `number`, `seed` and `config`, the complete config as JSON.
    """

    def setup(  # type: ignore[override]
        self, config: dict[str, Any], data: list[Any], folder: str, rungs: set[int], gpu_device: str
    ) -> None:
        """Begin a trial, after its last checkpoint if it has one.

        Args:
            config: the Tune config of the trial.
            data: one reference to the `Interactions`, in a list so that it travels as a reference.
            folder: where each trial of the study has a folder of its own.
            rungs: the steps after which a trial may be stopped.
            gpu_device: the torch device of a trial that has a GPU.
        """
        if ray.get_runtime_context().get_actor_id() is not None:
            # Ray ends a busy worker by SIGTERM, and its own handler would print a traceback wherever the trial happens to be.
            signal.signal(signal.SIGTERM, lambda number, _: os._exit(128 + number))
        self._data = ray.get(data[0])
        self._folder = self._trial_folder = Path(folder)
        require_seen(self._folder.parent)
        self._rungs = rungs
        self._device = gpu_device if ray.get_gpu_ids() else "cpu"
        self._save_from = self._started = 0.0
        self._start(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begin another trial in the same process, on the same data."""
        self._start(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Train and rank one epoch, or a part of it.

        Returns:
            `epoch`, `step`, `whole`, `metrics` and `is_last` of an `Epoch`, `started` (Unix seconds of the first batch in this
            process), and `saved`, the name of a checkpoint that counts once the record has this step; or `diverged` with the
            reason, where the loss was no longer finite; or `no_room` with the reason, where a disk was full.
        """
        try:
            epoch = next(self._epochs)
        except FloatingPointError as error:
            return {"diverged": str(error)}
        told: dict[str, Any] = {
            "epoch": epoch.epoch,
            "step": epoch.step,
            "whole": epoch.whole,
            "metrics": epoch.metrics,
        }
        try:
            if epoch.is_last or epoch.step in self._rungs:
                self._save_best(epoch.state)
            if not epoch.is_last and time.monotonic() >= self._save_from:
                told |= self._save(epoch.state, epoch.step)
        except (OSError, SafetensorError) as error:
            if (reason := no_room(error)) is None:
                raise
            return {"no_room": reason}
        return {**told, "is_last": epoch.is_last, "started": self._started}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: a trial keeps its own checkpoint, which a retry and a resumed search find alike."""

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        """Nothing, as there is no checkpoint of Tune's."""

    def _start(self, tune_config: dict[str, Any]) -> None:
        self._config = config = Config.model_validate_json(tune_config["config"])
        torch.set_num_threads(max(1, int(config.resources.cpu)))
        forget(self._trial_folder)  # of the trial before
        self._trial_folder = self._folder / str(tune_config["number"])
        self._checkpoint = self._trial_folder / CHECKPOINT
        sizes = self._data.n_users, self._data.n_items
        fetch(self._checkpoint)
        saved = self._checkpoint.is_file()
        state = (
            TrainingState.load(self._checkpoint, config, *sizes, self._device) if saved else None
        )
        self._epochs: Iterator[Epoch] = fit(
            config, self._data, tune_config["seed"], device=self._device, state=state
        )
        self._save_from = time.monotonic() + CHECKPOINT_SECONDS
        self._started = time.time()
        self._kept_epoch: int | None = None

    def _save_best(self, state: TrainingState) -> None:
        """Write the best weights, before the report that may end the trial: nobody has to ask for them after it."""
        if state.best_epoch != self._kept_epoch:
            state.save_best(self._trial_folder / WEIGHTS, self._config)
            self._kept_epoch = state.best_epoch

    def _save(self, state: TrainingState, step: int) -> dict[str, str]:
        """Write a checkpoint. Returns what to tell of it: its name where it does not count yet, as the record lies elsewhere."""
        start, waits = time.monotonic(), url_of(self._folder) is not None
        path = self._trial_folder / f"{CHECKPOINT}.{step}" if waits else self._checkpoint
        state.save(path)
        end = time.monotonic()
        self._save_from = end + max(CHECKPOINT_SECONDS, (end - start) / CHECKPOINT_SHARE)
        if not waits:
            return {}
        forget(path)
        return {"saved": path.name}
