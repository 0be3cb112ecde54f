"""The Optuna study as the record of a search: what was tried, what it reached at each epoch, and how it ended.

The searcher, the scheduler and the MLflow callback write here as things happen, the stop decision before it takes effect;
progress, the leaderboard and final training read here. There is no second truth in Tune's own state.
"""

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from recsys.config.schema import Config, replace_values
from recsys.search.record.study_storage import start_of
from recsys.search.record.summaries import TrialSummary
from recsys.search.space.space import Scalar, SearchSpace, by_path, refusals

_STUDY_RUN_ID, _RUN_ID = "mlflow_run_id", "mlflow_run_id:"
"""The attribute with the id of the study's run in MLflow; the beginning of those with the trials', which end in the number."""
_IS_START = "is_start"
_BESIDE = "beside"
"""Values of a trial that lie outside of the space: they were run, and the sampler knows the nearest of the space."""


@dataclass
class _Progress:
    """What a running trial has reached in this process, beside what is in the storage."""

    trial: optuna.Trial
    last_step: int = 0
    best: float = float("-inf")
    nodes: dict[str, str] = field(default_factory=dict)

    def take_up(self, found: FrozenTrial, parts: int) -> None:
        """Stand where the storage says that the trial was left."""
        self.last_step = found.last_step or 0
        whole = [value for step, value in found.intermediate_values.items() if step % parts == 0]
        self.best = max(whole, default=self.best)
        self.nodes = dict(found.user_attrs.get("nodes", {}))


class StudyRecord:
    """Reads and writes the record of one study."""

    def __init__(self, study: optuna.Study, base: Config, space: SearchSpace) -> None:
        self._study = study
        self._base = base
        self._space = space
        self.parts = start_of(study).parts
        """Steps of an epoch."""
        self._running: dict[int, _Progress] = {}
        self._rungs: dict[int, dict[int, float]] = {}
        self._left: deque[optuna.Trial] = deque()
        self._ended: dict[int, TrialSummary] = {}
        attributes = study.user_attrs
        self._run_ids = {
            int(key.removeprefix(_RUN_ID)): attributes[key]
            for key in attributes
            if key.startswith(_RUN_ID)
        }

    def enqueue_first_points(self) -> None:
        """Queue what the search starts with: the base config (see `SearchSpace.beside`), then the warm starts."""
        point, beside = self._space.point(self._base), self._space.beside(self._base)
        if refusals(self._base, point | beside):
            beside = {}  # they do not go together with a choice that takes the place of the base's own
        self._enqueue(point, beside)
        for warm_start in self._space.warm_start:
            self._enqueue(warm_start, {})

    def _enqueue(self, point: Mapping[str, Scalar], beside: Mapping[str, Scalar]) -> None:
        attributes = {_IS_START: True, _BESIDE: dict(beside)}
        self._study.enqueue_trial(
            self._space.by_name(point), user_attrs=attributes, skip_if_exists=True
        )

    def reopen(self) -> None:
        """Take up a study that was left: its values fill the rungs, and its unfinished trials are handed out again first."""
        for found in self._study.get_trials(deepcopy=False):
            for step, value in found.intermediate_values.items():
                self._rungs.setdefault(step, {})[found.number] = value
            if found.state == TrialState.RUNNING:
                trial = optuna.trial.Trial(self._study, found._trial_id)
                if found.user_attrs.get("diverged"):
                    self._study.tell(trial, state=TrialState.PRUNED)
                else:
                    self._left.append(trial)

    def ask(self) -> tuple[int, Config]:
        """Begin a new trial, or go on with one that was left: its number and its complete config."""
        trial = self._left.popleft() if self._left else self._study.ask()
        self._space.suggest(trial)
        running = _Progress(trial)
        running.take_up(self._trial(trial.number), self.parts)
        self._running[trial.number] = running
        return trial.number, self.config_of(trial.number)

    def leave(self, number: int) -> None:
        """Give a running trial back, to be handed out again."""
        self._left.append(self._running.pop(number).trial)

    @property
    def n_finished(self) -> int:
        """Trials that have ended."""
        return sum(trial.state.is_finished() for trial in self._study.get_trials(deepcopy=False))

    @property
    def n_running(self) -> int:
        """Trials that were begun in this process and have no ending yet."""
        return len(self._running)

    def is_running(self, number: int) -> bool:
        """Whether a trial was begun in this process and has no ending yet."""
        return number in self._running

    def is_start(self, number: int) -> bool:
        """Whether the search started with this trial's point, instead of proposing it."""
        return _IS_START in self._trial(number).user_attrs

    def report(self, number: int, step: int, value: float, metrics: Mapping[str, float]) -> bool:
        """Write a step's validation value; one that was written before is left as it was. Returns whether it was new.

        Of `parts` steps the last completes an epoch; it alone counts for the trial's value.
        """
        running = self._running[number]
        if step <= running.last_step:
            return False
        if step % self.parts == 0 and value > running.best:
            running.best = value
            # Before the value: a step that has its value is not written again, should the process end between the two.
            running.trial.set_user_attr("metrics", dict(metrics))
        running.trial.report(value, step)
        running.last_step = step
        self._rungs.setdefault(step, {})[number] = value
        return True

    def ran_on(self, number: int, step: int, node: str) -> None:
        """Write which node a new step ran on, where it is not the one before; to be called before the step is reported."""
        running = self._running[number]
        if step > running.last_step and node != next(reversed(running.nodes.values()), None):
            running.nodes[str(math.ceil(step / self.parts))] = node
            running.trial.set_user_attr("nodes", running.nodes)

    def values_at(self, step: int) -> Mapping[int, float]:
        """The value of each trial that reported this step, by trial number."""
        return self._rungs.get(step, {})

    def is_pruned_by(self, pruner: optuna.pruners.BasePruner, number: int) -> bool:
        """Return what a pruner of Optuna's says of a trial after its last report."""
        return pruner.prune(self._study, self._trial(number))

    def values_of(self, number: int) -> Mapping[int, float]:
        """A trial's values by step, in order."""
        return dict(sorted(self._trial(number).intermediate_values.items()))

    @property
    def run_id(self) -> str | None:
        """The study's own run in MLflow, None if there is none."""
        run_id: str | None = self._study.user_attrs.get(_STUDY_RUN_ID)
        return run_id

    def attach_run(self, number: int | None, run_id: str) -> None:
        """Write which MLflow run belongs to a trial, ended or not, or to the study (None); another thread may call this."""
        if number is None:
            self._study.set_user_attr(_STUDY_RUN_ID, run_id)
            return
        self._study.set_user_attr(
            f"{_RUN_ID}{number}", run_id
        )  # an ended trial takes no attributes
        self._run_ids[number] = run_id

    def ending(self, number: int) -> str:
        """How a trial ended, or `unfinished`."""
        return _state(self._trial(number))

    def finish(self, number: int, state: str) -> None:
        """Write how a running trial ended: complete, pruned, failed or diverged."""
        running = self._running.pop(number)
        if state == "diverged":
            # The sampler keeps away from a violated constraint; a made-up score would mislead it.
            running.trial.set_constraint("diverged", 1.0)
            running.trial.set_user_attr("diverged", True)
        if state == "complete":
            self._study.tell(running.trial, running.best)
        else:
            self._study.tell(
                running.trial, state=TrialState.FAIL if state == "failed" else TrialState.PRUNED
            )

    def summaries(self) -> list[TrialSummary]:
        """All trials in the order of their numbers; points still waiting in the queue are left out."""
        trials = self._study.get_trials(deepcopy=False)
        return [self._summarise(trial) for trial in trials if trial.state != TrialState.WAITING]

    def summary(self, number: int) -> TrialSummary:
        """One trial."""
        return self._summarise(self._trial(number))

    def _summarise(self, trial: FrozenTrial) -> TrialSummary:
        run_id, ended = self._run_ids.get(trial.number), self._ended.get(trial.number)
        if (
            ended is not None and ended.run_id == run_id
        ):  # of an ended trial the run alone may come later
            return ended
        values = {
            step // self.parts: value
            for step, value in trial.intermediate_values.items()
            if step % self.parts == 0
        }
        epoch = max(values, key=lambda e: (values[e], -e)) if values else None
        summary = TrialSummary(
            number=trial.number,
            state=_state(trial),
            epochs=max(values, default=0),
            value=None if epoch is None else values[epoch],
            epoch=epoch,
            params=_params(trial),
            metrics=dict(trial.user_attrs.get("metrics", {})),
            run_id=run_id,
            nodes=dict(trial.user_attrs.get("nodes", {})),
        )
        if trial.state.is_finished():
            self._ended[trial.number] = summary
        return summary

    def config_of(self, number: int) -> Config:
        """The complete config of a trial."""
        return replace_values(self._base, _params(self._trial(number)))

    def _trial(self, number: int) -> FrozenTrial:
        """A trial as the storage has it; `study.trials` would copy all of them."""
        return self._study.get_trials(deepcopy=False)[number]


def trial_seed(study_seed: int, number: int) -> int:
    """A trial's own seed, derived from the study's and the trial's number."""
    return int(np.random.SeedSequence((study_seed, number)).generate_state(1)[0])


def _params(trial: FrozenTrial) -> dict[str, Any]:
    """The parameters that a trial was run with, by config path."""
    beside: dict[str, Any] = trial.user_attrs.get(_BESIDE, {})
    return by_path(trial.params) | beside


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
