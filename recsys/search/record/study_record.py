"""The record of a study: what was tried, what it reached at each step, and how it ended.

The searcher, the recorder and the MLflow callback write here as things happen, a decision before it
takes effect; progress, the leaderboard and final training read here. It is an Optuna study, and the
only state of a search: Tune's own is not kept.
"""

import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace

import optuna
from optuna.trial import FrozenTrial, TrialState

from recsys.config.schema import Config, replace_values
from recsys.search.record.origin import StudyOrigin
from recsys.search.record.running_trial import EpochPlan, RunningTrial
from recsys.search.record.summaries import (
    OUTSIDE_VALUES,
    PLANNED_EPOCHS,
    SKIPPED,
    OnAllUsers,
    TrialSummary,
    is_trial,
    params_of,
    state_of,
    summarise,
)
from recsys.search.record.trial_attributes import (
    ON_ALL_USERS,
    RUN_ID,
    get_attributes,
    set_attribute,
)
from recsys.search.space.first_points import first_points
from recsys.search.space.search_space import SearchSpace

_IS_FIRST_POINT = "is_start"


class StudyRecord:
    """Reader and writer of the record of one study, whose trials replace values of `base`."""

    def __init__(self, study: optuna.Study, base: Config, space: SearchSpace) -> None:
        self._study = study
        self.base = base
        self.space = space
        self.n_segments = StudyOrigin.of(study).n_segments
        """Segments of an epoch, and so its steps."""
        self._running: dict[int, RunningTrial] = {}
        self._values_by_step: dict[int, dict[int, float]] = {}
        self.plans: dict[int, EpochPlan] = {}
        """Plan of each trial that was planned with fewer epochs than it was proposed with."""
        self._requeued: deque[int] = deque()
        self._ended: dict[int, TrialSummary] = {}
        self._run_ids: dict[int, str] = get_attributes(study, RUN_ID)
        on_all_users = get_attributes(study, ON_ALL_USERS)
        self._on_all_users = {number: OnAllUsers(**found) for number, found in on_all_users.items()}

    def enqueue_first_points(self) -> None:
        """Queue the points that a search starts with."""
        for point, outside in first_points(self.space, self.base):
            attributes = {_IS_FIRST_POINT: True, OUTSIDE_VALUES: dict(outside)}
            self._study.enqueue_trial(self.space.by_name(point), user_attrs=attributes)

    def resume(self) -> None:
        """Load the values that earlier processes stored, and queue their unfinished trials."""
        for stored in self._study.get_trials(deepcopy=False):
            for step, value in stored.intermediate_values.items():
                self._values_by_step.setdefault(step, {})[stored.number] = value
            if planned := EpochPlan.of(stored, self.base):
                self.plans[stored.number] = planned
            if stored.state == TrialState.RUNNING:
                if stored.user_attrs.get("diverged"):
                    self._study.tell(self._writer(stored.number), state=TrialState.PRUNED)
                elif SKIPPED in stored.user_attrs:
                    self._study.tell(self._writer(stored.number), state=TrialState.FAIL)
                else:
                    self._requeued.append(stored.number)

    def ask(self, plan: Callable[[Config], int] | None = None) -> tuple[int, Config]:
        """Start the next trial, an unfinished one first; return its number and complete config.

        `plan` returns the epochs of a new trial, at most `training.max_epochs` of its config. An
        unfinished trial keeps what it was planned with.
        """
        is_new = not self._requeued
        trial = self._study.ask() if is_new else self._writer(self._requeued.popleft())
        self.space.suggest(trial)
        number = trial.number
        stored = self._trial(number)
        self._running[number] = RunningTrial.restore(trial, stored, self.n_segments, is_new=is_new)
        config = self.config_of(number)
        if is_new and plan is not None and (epochs := plan(config)) < config.training.max_epochs:
            trial.set_user_attr(PLANNED_EPOCHS, epochs)
            self.plans[number] = EpochPlan(epochs, config.training.max_epochs)
            config = self.config_of(number)
        return number, config

    def skip(self, number: int) -> None:
        """Do not run a trial that `ask` has started.

        A proposal of the sampler is no trial then. A first point and an unfinished trial stay
        unfinished, and run when the study is resumed.
        """
        is_proposal, trial = self.is_proposal(number), self._running.pop(number).trial
        if is_proposal:
            trial.set_user_attr(SKIPPED, True)
            self._study.tell(trial, state=TrialState.FAIL)  # which no sampler learns from

    def requeue(self, number: int) -> None:
        """Queue a running trial, so that `ask` starts it again."""
        self._requeued.append(self._running.pop(number).trial.number)

    def use(self, sampler: optuna.samplers.BaseSampler) -> None:
        """Let a sampler propose the next trials."""
        self._study.sampler = sampler

    @property
    def n_finished(self) -> int:
        """Number of trials that have ended."""
        return sum(trial.state.is_finished() for trial in self._trials())

    @property
    def n_running(self) -> int:
        """Number of trials that this process has started and that have not ended."""
        return len(self._running)

    def is_running(self, number: int) -> bool:
        """Return whether this process has started a trial that has not ended."""
        return number in self._running

    def is_first_point(self, number: int) -> bool:
        """Return whether a trial runs one of the points that the search started with."""
        return _IS_FIRST_POINT in self._trial(number).user_attrs

    def is_proposal(self, number: int) -> bool:
        """Return whether the sampler has just proposed a running trial."""
        return self._running[number].is_new and not self.is_first_point(number)

    def report(self, number: int, step: int, value: float, metrics: Mapping[str, float]) -> bool:
        """Store a step's validation value; return False, and store nothing, if it has one already.

        The trial's own value is its best at the end of an epoch, after `n_segments` steps.
        """
        running = self._running[number]
        if step <= running.last_step:
            return False
        if step % self.n_segments == 0 and value > running.best:
            running.best = value
            # Before the value: if the process dies between the two, the step is reported again.
            running.trial.set_user_attr("metrics", dict(metrics))
        running.trial.report(value, step)
        running.last_step = step
        self._values_by_step.setdefault(step, {})[number] = value
        return True

    def store_node(self, number: int, step: int, node: str) -> None:
        """Store the node of a new step if it differs from the last one; call it before `report`."""
        running = self._running[number]
        if step > running.last_step and node != next(reversed(running.nodes.values()), None):
            running.nodes[str(math.ceil(step / self.n_segments))] = node
            running.trial.set_user_attr("nodes", running.nodes)

    def values_at(self, step: int) -> Mapping[int, float]:
        """Return the value of each trial that reported this step, by trial number."""
        return self._values_by_step.get(step, {})

    def is_pruned_by(self, pruner: optuna.pruners.BasePruner, number: int) -> bool:
        """Return the decision of an Optuna pruner on a trial after its last report."""
        return pruner.prune(self._study, self._trial(number))

    def values_of(self, number: int) -> Mapping[int, float]:
        """Return a trial's values by step, in order."""
        return dict(sorted(self._trial(number).intermediate_values.items()))

    @property
    def run_id(self) -> str | None:
        """Id of the study's own run in MLflow, None if there is none."""
        run_id: str | None = self._study.user_attrs.get(RUN_ID)
        return run_id

    def attach_run(self, number: int | None, run_id: str) -> None:
        """Store the MLflow run of a trial, ended or not, or of the study (None); thread-safe."""
        if number is None:
            self._study.set_user_attr(RUN_ID, run_id)
            return
        set_attribute(self._study, RUN_ID, number, run_id)
        self._run_ids[number] = run_id

    def store_on_all_users(self, number: int, found: OnAllUsers) -> None:
        """Store the value on all users of a trial, before it is finished."""
        set_attribute(self._study, ON_ALL_USERS, number, asdict(found))
        self._on_all_users[number] = found

    def state_of(self, number: int) -> str:
        """Return the state in which a trial ended, or `unfinished`."""
        return state_of(self._trial(number))

    def finish(self, number: int, state: str) -> None:
        """Store the state in which a running trial ended: complete, pruned, failed or diverged."""
        running = self._running.pop(number)
        if state == "diverged":
            # The sampler avoids a violated constraint; an invented value would mislead it.
            running.trial.set_constraint("diverged", 1.0)
            running.trial.set_user_attr("diverged", True)
        if state == "complete":
            self._study.tell(running.trial, running.best)
        else:
            self._study.tell(
                running.trial, state=TrialState.FAIL if state == "failed" else TrialState.PRUNED
            )

    def summaries(self) -> list[TrialSummary]:
        """Return all trials by number, without queued points and skipped proposals."""
        return [self._summarise(trial) for trial in self._trials()]

    def summary(self, number: int) -> TrialSummary:
        """Return one trial."""
        return self._summarise(self._trial(number))

    def _summarise(self, trial: FrozenTrial) -> TrialSummary:
        run_id, ended = self._run_ids.get(trial.number), self._ended.get(trial.number)
        found = self._on_all_users.get(trial.number)
        if ended is not None and ended.run_id == run_id:  # which alone may change
            return ended
        summary = summarise(trial, self.n_segments, self.base.error_name, run_id)
        if trial.state.is_finished():
            if found is not None:  # a trial that was retried may have another best epoch now
                metrics = summary.metrics | found.metrics(self.base.metric_name)
                summary = replace(summary, epoch=found.epoch, on_all_users=found, metrics=metrics)
            self._ended[trial.number] = summary
        return summary

    def config_of(self, number: int) -> Config:
        """Return the complete config of a trial."""
        return replace_values(self.base, params_of(self._trial(number)))

    def _trials(self) -> list[FrozenTrial]:
        """Return all trials as stored, without queued points and skipped proposals."""
        return [trial for trial in self._study.get_trials(deepcopy=False) if is_trial(trial)]

    def _writer(self, number: int) -> optuna.Trial:
        return optuna.trial.Trial(self._study, self._trial(number)._trial_id)

    def _trial(self, number: int) -> FrozenTrial:
        """Return a trial as stored; `study.trials` would copy all of them."""
        return self._study.get_trials(deepcopy=False)[number]
