"""The Optuna study as the record of a search: what was tried, what it reached at each epoch, and how it ended.

The searcher, the scheduler and the MLflow callback write here as things happen, the stop decision before it takes effect;
progress, the leaderboard and final training read here. There is no second truth in Tune's own state.
"""

import logging
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from recsys.config import Config, replace_values
from recsys.search.space import SearchSpace

optuna.logging.set_verbosity(optuna.logging.WARNING)
logging.getLogger("alembic").setLevel(logging.WARNING)

SAMPLERS: dict[str, Callable[..., optuna.samplers.BaseSampler]] = {
    "tpe": partial(optuna.samplers.TPESampler, multivariate=True, group=True, constant_liar=True),
    "random": optuna.samplers.RandomSampler,
    "qmc": partial(optuna.samplers.QMCSampler, scramble=True, warn_independent_sampling=False),
}
STATES = ("complete", "pruned", "failed", "diverged", "unfinished")
_CHOOSABLE = ("complete", "pruned", "unfinished")
_STUDY_NAME = "study"
_PARTS = "parts"


@dataclass(frozen=True)
class TrialSummary:
    """One trial as the record has it; `value` is the best validation value and `epoch` (1-based) where it was reached."""

    number: int
    state: str
    epochs: int
    value: float | None
    epoch: int | None
    params: dict[str, Any]
    metrics: dict[str, float]
    run_id: str | None

    @property
    def choosable(self) -> bool:
        """Whether it may be chosen as the best: it reported a value and neither failed nor diverged."""
        return self.state in _CHOOSABLE and self.value is not None


@dataclass
class _Progress:
    """What a running trial has reached in this process, beside what is in the storage."""

    trial: optuna.Trial
    last_step: int = 0
    best: float = float("-inf")
    metrics: dict[str, float] = field(default_factory=dict)


class StudyRecord:
    """Reads and writes the record of one study."""

    def __init__(self, study: optuna.Study, base: Config, space: SearchSpace) -> None:
        self._study = study
        self._base = base
        self._space = space
        self.parts: int = study.user_attrs.get(_PARTS, 1)
        """Steps of an epoch."""
        self._running: dict[int, _Progress] = {}
        self._rungs: dict[int, dict[int, float]] = {}

    def enqueue_first_points(self) -> None:
        """Queue what the search starts with: the base config, as far as it lies in the space, then the warm starts."""
        for point in (self._space.point(self._base), *self._space.warm_start):
            self._study.enqueue_trial(dict(point), skip_if_exists=True)

    def ask(self) -> tuple[int, Config]:
        """Begin a new trial: its number and its complete config."""
        trial = self._study.ask()
        values = self._space.suggest(trial, self._base)
        self._running[trial.number] = _Progress(trial)
        return trial.number, replace_values(self._base, values)

    def is_running(self, number: int) -> bool:
        """Whether a trial was begun in this process and has no ending yet."""
        return number in self._running

    def report(self, number: int, step: int, value: float, metrics: Mapping[str, float]) -> bool:
        """Write a step's validation value; one that was written before is left as it was. Returns whether it was new.

        Of `parts` steps the last completes an epoch; it alone counts for the trial's value.
        """
        running = self._running[number]
        if step <= running.last_step:
            return False
        running.trial.report(value, step)
        running.last_step = step
        self._rungs.setdefault(step, {})[number] = value
        if step % self.parts == 0 and value > running.best:
            running.best, running.metrics = value, dict(metrics)
        return True

    def values_at(self, step: int) -> Mapping[int, float]:
        """The value of each trial that reported this step, by trial number."""
        return self._rungs.get(step, {})

    def attach_run(self, number: int, run_id: str) -> None:
        """Write which MLflow run belongs to the trial."""
        self._running[number].trial.set_user_attr("mlflow_run_id", run_id)

    def ending(self, number: int) -> str:
        """How a trial ended, or `unfinished`."""
        return _state(self._trial(number))

    def finish(self, number: int, state: str) -> None:
        """Write how a running trial ended: complete, pruned, failed or diverged."""
        running = self._running.pop(number)
        if running.metrics:
            running.trial.set_user_attr("metrics", running.metrics)
        if state == "diverged":
            # The sampler keeps away from a violated constraint; a made-up score would mislead it.
            running.trial.set_constraint("diverged", 1.0)
            running.trial.set_user_attr("diverged", True)
        if state == "complete":
            self._study.tell(running.trial, running.best)
        else:
            self._study.tell(running.trial, state=TrialState.FAIL if state == "failed" else TrialState.PRUNED)

    def summaries(self) -> list[TrialSummary]:
        """All trials in the order of their numbers; points still waiting in the queue are left out."""
        trials = self._study.get_trials(deepcopy=False)
        return [self._summarise(trial) for trial in trials if trial.state != TrialState.WAITING]

    def _summarise(self, trial: FrozenTrial) -> TrialSummary:
        values = {step // self.parts: value for step, value in trial.intermediate_values.items() if step % self.parts == 0}
        epoch = max(values, key=lambda e: (values[e], -e)) if values else None
        running = self._running.get(trial.number)
        metrics = running.metrics if running else trial.user_attrs.get("metrics", {})
        return TrialSummary(
            number=trial.number,
            state=_state(trial),
            epochs=max(values, default=0),
            value=None if epoch is None else values[epoch],
            epoch=epoch,
            params=dict(trial.params),
            metrics=dict(metrics),
            run_id=trial.user_attrs.get("mlflow_run_id"),
        )

    def config_of(self, number: int) -> Config:
        """The complete config of a trial."""
        return replace_values(self._base, self._trial(number).params)

    def _trial(self, number: int) -> FrozenTrial:
        """A trial as the storage has it; `study.trials` would copy all of them."""
        return self._study.get_trials(deepcopy=False)[number]


def trial_seed(study_seed: int, number: int) -> int:
    """A trial's own seed, derived from the study's and the trial's number."""
    return int(np.random.SeedSequence((study_seed, number)).generate_state(1)[0])


def ranked(summaries: list[TrialSummary]) -> list[TrialSummary]:
    """Trials from the best value to the worst, of equals the earlier one first; those that may not be chosen at the end."""
    return sorted(summaries, key=lambda s: (not s.choosable, -(s.value or 0.0), s.number))


def best_trial(summaries: list[TrialSummary]) -> TrialSummary | None:
    """The first of the ranked trials, None if none may be chosen."""
    return next((s for s in ranked(summaries) if s.choosable), None)


def count_states(summaries: list[TrialSummary]) -> dict[str, int]:
    """How many trials ended in each state."""
    found = Counter(summary.state for summary in summaries)
    return {state: found[state] for state in STATES}


def create_study(folder: Path, config: Config, parts: int) -> optuna.Study:
    """A new, empty study in the folder's storage, whose epochs report in `parts` steps."""
    with warnings.catch_warnings():
        # Multivariate, group and quasi-random sampling are used on purpose.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = SAMPLERS[config.study.sampler](seed=config.study.seed)
    study = optuna.create_study(storage=_storage(folder), study_name=_STUDY_NAME, sampler=sampler, direction="maximize")
    study.set_user_attr(_PARTS, parts)
    return study


def load_study(folder: Path) -> optuna.Study:
    """The study of a folder, for reading.

    Raises:
        FileNotFoundError: if the folder holds no study.
    """
    if not (folder / "optuna.db").is_file():
        known = sorted(path.parent.name for path in folder.parent.glob("*/optuna.db"))
        raise FileNotFoundError(
            f"{folder}: must be a study, but got no record of one. "
            + (f"Studies here are {', '.join(known)}." if known else "Start one with python -m recsys.tune.")
        )
    return optuna.load_study(storage=_storage(folder), study_name=_STUDY_NAME)


def _storage(folder: Path) -> optuna.storages.RDBStorage:
    return optuna.storages.RDBStorage(f"sqlite:///{(folder / 'optuna.db').resolve()}")


def _state(trial: FrozenTrial) -> str:
    if trial.user_attrs.get("diverged"):
        return "diverged"
    return {
        TrialState.COMPLETE: "complete",
        TrialState.PRUNED: "pruned",
        TrialState.FAIL: "failed",
        TrialState.RUNNING: "unfinished",
        TrialState.WAITING: "unfinished",
    }[trial.state]
