"""Leading trials ranked on all users: the last step of a search that ranked a sample of them.

The best of many values on one sample is partly luck. The kept trials whose values are close to the
best are ranked again with their best weights, on all users of validation and on the workers' nodes,
and `summaries.ranked` chooses by these values.
"""

import logging
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from safetensors import safe_open

from recsys.cluster.resources import Slots, task_options
from recsys.config.schema import Config
from recsys.console.verbosity import progress
from recsys.data.interactions import Interactions
from recsys.evaluation.evaluate import evaluate
from recsys.evaluation.scorers import scorer_of
from recsys.models import build_model
from recsys.search.record.study_record import StudyRecord
from recsys.search.record.summaries import OnAllUsers, TrialSummary, ranked_by_value
from recsys.search.tuning.trainable import WEIGHTS
from recsys.storage.s3 import delete_local_copy, fetch

_CLOSE = 2.0
"""Standard errors of the difference from the best within which a trial may be the best."""
_STOP_SECONDS = 10.0
"""Time in which Tune stops trials within an epoch."""
_MOST_RESERVED = 0.25
"""Largest share of a time budget that is reserved."""
_POLL_SECONDS = 0.5
_log = logging.getLogger(__name__)


class Leaders:
    """Leading trials of a study, and their ranking on all users."""

    def __init__(
        self,
        record: StudyRecord,
        config: Config,
        data: Any,
        trials: Path,
        *,
        slots: Slots,
        gpu_device: str,
    ) -> None:
        """Prepare to rank.

        Args:
            record: the record of the study.
            config: the base config.
            data: reference to the `Interactions` in Ray's object store.
            trials: the folder in which each trial has a folder.
            slots: how many trials may run at a time.
            gpu_device: the torch device of trials that have a GPU.
        """
        self._record = record
        self._config = config
        self._data = data
        self._trials = trials
        self._slots = slots
        self._gpu_device = gpu_device
        limit, held_out = config.evaluation.user_limit, ray.get(data).held_out
        n_users = 0 if limit is None else len(np.unique(held_out.user))
        self._ratio = 0.0 if limit is None or n_users <= limit else n_users / limit
        """All users by those of the sample, 0 if the sample is all of them."""

    def seconds_to_reserve(self, start_seconds: float) -> float:
        """Return the time to keep of a time budget for ranking the leading trials.

        `start_seconds`: in which a worker starts.
        """
        missing = self._missing()
        if not missing:
            return 0.0
        slowest = max(summary.metrics.get("rank_seconds", 0.0) for summary in missing)
        rounds = math.ceil(len(missing) / self._slots.count())
        seconds = _STOP_SECONDS + start_seconds + rounds * slowest * self._ratio
        return min(seconds, _MOST_RESERVED * (self._config.study.time_budget or math.inf))

    def rank(self, seconds: float | None, interrupted: Callable[[], bool]) -> None:
        """Rank the leading trials that have not been ranked on all users, and store their values.

        Ends after `seconds`, if there is a limit, or once `interrupted()`. Trials that are not
        ranked by then are named in a warning.
        """
        waiting = self._missing()
        deadline = None if seconds is None else time.monotonic() + seconds
        running: dict[Any, TrialSummary] = {}
        with progress("Ranking the leading trials on all users"):
            while waiting or running:
                if interrupted() or (deadline is not None and time.monotonic() >= deadline):
                    break
                while waiting and len(running) < self._slots.count():
                    summary = waiting.pop(0)
                    running[self._start(summary)] = summary
                done, _ = ray.wait(list(running), timeout=_POLL_SECONDS)
                for task in done:
                    self._store(running.pop(task), task)
        for task in running:
            ray.cancel(task, force=True)
        if not interrupted():
            self._warn([*running.values(), *waiting])

    def _missing(self) -> list[TrialSummary]:
        """Return the ended leading trials without a value on all users, the best first.

        If the best trial has not ended, there are none: its best weights are not saved, so that the
        others would have nothing to be compared with.
        """
        leading = self._leading()
        if not leading or leading[0].state == "unfinished":
            return []
        return [s for s in leading if s.on_all_users is None and s.state != "unfinished"]

    def _leading(self) -> list[TrialSummary]:
        """Return the trials that may be the best on all users, none if all users were ranked."""
        if not self._ratio:
            return []
        choosable = [summary for summary in self._record.summaries() if summary.choosable]
        return find_leaders(choosable, self._config.study.keep_checkpoints)

    def _start(self, summary: TrialSummary) -> Any:
        config = self._record.config_of(summary.number)
        task = ray.remote(_rank_on_all_users).options(**task_options(config))
        weights = self._trials / str(summary.number) / WEIGHTS
        return task.remote(config.model_dump_json(), self._data, str(weights), self._gpu_device)

    def _store(self, summary: TrialSummary, task: Any) -> None:
        try:
            value, error = ray.get(task)
        except ray.exceptions.RayError as failure:
            # A search is not lost by its last step; the trial keeps its value on the sample.
            _log.warning("Trial %d was not ranked on all users: %s", summary.number, failure)
            return
        assert summary.epoch is not None
        self._record.store_on_all_users(summary.number, OnAllUsers(value, error, summary.epoch))

    def _warn(self, left: list[TrialSummary]) -> None:
        n_users, leading = self._config.evaluation.user_limit, self._leading()
        if left:
            _log.warning(
                "No time was left to rank trial %s on all users: the values on %d users decide. "
                "--resume ranks what is missing.",
                ", ".join(str(summary.number) for summary in left),
                n_users,
            )
        if leading and leading[0].state == "unfinished":
            _log.warning(
                "Trial %d leads and has not ended, so its weights are not saved: the values on %d "
                "users decide. --resume continues it.",
                leading[0].number,
                n_users,
            )


def find_leaders(summaries: list[TrialSummary], n_most: int) -> list[TrialSummary]:
    """Return the trials, at most `n_most`, that may be the best on all users, the best first.

    Their values are within two standard errors of the difference from the best value. The values
    are taken as independent: on the same users they vary together, so the bound is wide.
    """
    leading = ranked_by_value(summaries)[:n_most]
    return [summary for summary in leading if _is_close(summary, leading[0])]


def _is_close(summary: TrialSummary, best: TrialSummary) -> bool:
    if summary.standard_error is None or best.standard_error is None:
        return True
    assert summary.value is not None
    assert best.value is not None
    error = math.hypot(summary.standard_error, best.standard_error)
    return best.value - summary.value <= _CLOSE * error


def _rank_on_all_users(
    config_json: str, data: Interactions, weights: str, gpu_device: str
) -> tuple[float, float | None]:
    """Return the searched metric of saved weights on all users, and its standard error."""
    config, path = Config.model_validate_json(config_json), Path(weights)
    torch.set_num_threads(max(1, int(config.resources.cpu)))
    device = gpu_device if ray.get_gpu_ids() else "cpu"
    fetch(path)
    with safe_open(path, framework="pt", device=device) as file:
        names = file.keys()  # the file itself is not a mapping
        tensors = {name: file.get_tensor(name) for name in names}
    delete_local_copy(path)
    model = build_model(config.model, data.n_users, data.n_items, torch.Generator()).to(device)
    model.load_state_dict(tensors)
    values = evaluate(scorer_of(model, data), data, config)
    metric, error = (name.removeprefix("val_") for name in (config.metric_name, config.error_name))
    return values[metric], values.get(error)
