"""The command `recsys.tune` with the proposals of Ray Tune's OptunaSearch; the rest is the same.

OptunaSearch reports every trial to Optuna as complete with its last value, pruned ones included.
"""

import sys
from collections.abc import Mapping
from typing import Any

from optuna.trial import TrialState
from ray.tune.search.optuna import OptunaSearch

from recsys import tune
from recsys.config.schema import Config
from recsys.search.record.study_record import StudyRecord
from recsys.search.sampling.samplers import tpe
from recsys.search.space.first_points import first_points
from recsys.search.tuning import run
from recsys.search.tuning.messages import Diverged, Report, message_of
from recsys.search.tuning.searcher import StudySearcher


class OptunaSearchProposals(StudySearcher):
    """Searcher that proposes OptunaSearch's points and keeps the record as usual.

    OptunaSearch uses TPE in a study of its own. It proposes without regard to cost.
    """

    def __init__(self, record: StudyRecord, *arguments: Any) -> None:
        super().__init__(record, *arguments)
        self._optuna_study, base, space = record._study, record.base, record.space
        self._metric_name = base.metric_name
        points = [space.by_name(point) for point, _ in first_points(space, base)]

        def define(trial: Any) -> None:
            space.suggest(trial)

        self._proposals = OptunaSearch(
            define,
            metric=self._metric_name,
            mode="max",
            points_to_evaluate=points,
            sampler=tpe(base.study.seed),
        )

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]
        """Return OptunaSearch's proposal where a trial may start, so that the two studies agree."""
        n_running = self._record.n_running
        is_last = self._limit is not None and self._record.n_finished + n_running >= self._limit
        if n_running >= self._n_slots() or is_last:
            return super().suggest(trial_id)
        point = self._proposals.suggest(trial_id)
        assert point is not None
        # The first points are in the queue already.
        if not self._optuna_study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            self._optuna_study.enqueue_trial(point)
        return super().suggest(trial_id)

    def _start(self) -> tuple[int, Config]:
        return self._record.ask(self._schedule.plan if self._schedule else None)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Report an epoch to OptunaSearch if it has a value: it was ranked and did not diverge."""
        message = message_of(result)
        if isinstance(message, Report) and self._metric_name in message.metrics:
            self._proposals.on_trial_result(trial_id, self._with_value(result))

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """End the trial in both studies."""
        diverged = result is not None and isinstance(message_of(result), Diverged)
        with_value = None if result is None else self._with_value(result)
        self._proposals.on_trial_complete(trial_id, with_value, error or diverged)
        super().on_trial_complete(trial_id, result, error)

    def _with_value(self, result: Mapping[str, Any]) -> dict[str, Any]:
        """Add the metric under its own name, where OptunaSearch reads it."""
        message = message_of(result)
        if not isinstance(message, Report):
            return dict(result)
        return {**result, self._metric_name: message.metrics[self._metric_name]}


if __name__ == "__main__":
    run.StudySearcher = OptunaSearchProposals  # type: ignore[misc,attr-defined]
    sys.exit(tune.main())
