"""Study in memory whose changes are written to its database first.

It serves the record of a study in a database. From a database, Optuna reads all running trials
whenever it looks at a study, because other processes may have written. Here the lease of the study
ensures that there is only one writer.
"""

import copy
from collections.abc import Sequence
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.trial import FrozenTrial, TrialState


class WriteThroughStorage(InMemoryStorage):
    """Storage in memory of one study of a database, whose only writer it is.

    The ids of its trials are their numbers, not the ids in the database.
    """

    def __init__(self, database: BaseStorage, study_name: str) -> None:
        """Read the study from the database.

        Raises:
            KeyError: if the database has no such study.
        """
        super().__init__()
        self._database = database
        self._database_study_id = database.get_study_id_from_name(study_name)
        directions = database.get_study_directions(self._database_study_id)
        study_id = super().create_new_study(directions, study_name)
        for key, value in database.get_study_user_attrs(self._database_study_id).items():
            super().set_study_user_attr(study_id, key, value)
        for key, value in database.get_study_system_attrs(self._database_study_id).items():
            super().set_study_system_attr(study_id, key, value)
        self._database_trial_ids: list[int] = []
        for trial in database.get_all_trials(self._database_study_id, deepcopy=False):
            self._database_trial_ids.append(trial._trial_id)
            super().create_new_trial(study_id, trial)

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        """Write to the database, then to memory."""
        self._database.set_study_user_attr(self._database_study_id, key, value)
        super().set_study_user_attr(study_id, key, copy.deepcopy(value))

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        """Write to the database, then to memory."""
        self._database.set_study_system_attr(self._database_study_id, key, value)
        super().set_study_system_attr(study_id, key, copy.deepcopy(value))

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """Write to the database, then load the trial as the database has it."""
        database_id = self._database.create_new_trial(self._database_study_id, template_trial)
        self._database_trial_ids.append(database_id)
        return super().create_new_trial(study_id, self._database.get_trial(database_id))

    def set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
    ) -> None:
        """Write to the database, then to memory."""
        self._database.set_trial_param(
            self._database_trial_ids[trial_id], param_name, param_value_internal, distribution
        )
        super().set_trial_param(trial_id, param_name, param_value_internal, distribution)

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """Write to the database, then to memory unless the database refused."""
        changed = self._database.set_trial_state_values(
            self._database_trial_ids[trial_id], state, values
        )
        return changed and super().set_trial_state_values(trial_id, state, values)

    def set_trial_intermediate_value(
        self, trial_id: int, step: int, intermediate_value: float
    ) -> None:
        """Write to the database, then to memory."""
        self._database.set_trial_intermediate_value(
            self._database_trial_ids[trial_id], step, intermediate_value
        )
        super().set_trial_intermediate_value(trial_id, step, intermediate_value)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Write to the database, then to memory."""
        self._database.set_trial_user_attr(self._database_trial_ids[trial_id], key, value)
        super().set_trial_user_attr(trial_id, key, copy.deepcopy(value))

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Write to the database, then to memory."""
        self._database.set_trial_system_attr(self._database_trial_ids[trial_id], key, value)
        super().set_trial_system_attr(trial_id, key, copy.deepcopy(value))
