"""A study in memory, each change of which is written to its database first.

Stands between the record and a database: Optuna reads all running trials from one whenever it looks at a study, since others may
have written. The lease of a study leaves one writer.
"""

import copy
from collections.abc import Sequence
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.trial import FrozenTrial, TrialState


class WriteThroughStorage(InMemoryStorage):
    """Holds one study of a database that nobody else writes to; trials have ids of its own, which are their numbers."""

    def __init__(self, database: BaseStorage, study_name: str) -> None:
        """Read the study.

        Raises:
            KeyError: if the database has no such study.
        """
        super().__init__()
        self._database = database
        self._there = database.get_study_id_from_name(study_name)
        here = super().create_new_study(database.get_study_directions(self._there), study_name)
        for key, value in database.get_study_user_attrs(self._there).items():
            super().set_study_user_attr(here, key, value)
        for key, value in database.get_study_system_attrs(self._there).items():
            super().set_study_system_attr(here, key, value)
        self._trials_there: list[int] = []
        for trial in database.get_all_trials(self._there, deepcopy=False):
            self._trials_there.append(trial._trial_id)
            super().create_new_trial(here, trial)

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        """Write there, then here."""
        self._database.set_study_user_attr(self._there, key, value)
        super().set_study_user_attr(study_id, key, copy.deepcopy(value))

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        """Write there, then here."""
        self._database.set_study_system_attr(self._there, key, value)
        super().set_study_system_attr(study_id, key, copy.deepcopy(value))

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """Write there, then here as it is there."""
        there = self._database.create_new_trial(self._there, template_trial)
        self._trials_there.append(there)
        return super().create_new_trial(study_id, self._database.get_trial(there))

    def set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
    ) -> None:
        """Write there, then here."""
        self._database.set_trial_param(
            self._trials_there[trial_id], param_name, param_value_internal, distribution
        )
        super().set_trial_param(trial_id, param_name, param_value_internal, distribution)

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """Write there, then here unless it was refused."""
        changed = self._database.set_trial_state_values(self._trials_there[trial_id], state, values)
        return changed and super().set_trial_state_values(trial_id, state, values)

    def set_trial_intermediate_value(
        self, trial_id: int, step: int, intermediate_value: float
    ) -> None:
        """Write there, then here."""
        self._database.set_trial_intermediate_value(
            self._trials_there[trial_id], step, intermediate_value
        )
        super().set_trial_intermediate_value(trial_id, step, intermediate_value)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Write there, then here."""
        self._database.set_trial_user_attr(self._trials_there[trial_id], key, value)
        super().set_trial_user_attr(trial_id, key, copy.deepcopy(value))

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Write there, then here."""
        self._database.set_trial_system_attr(self._trials_there[trial_id], key, value)
        super().set_trial_system_attr(trial_id, key, copy.deepcopy(value))
