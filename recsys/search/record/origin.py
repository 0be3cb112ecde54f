"""Origin of a study: the data and fixed paths that it was created with.

It is stored with the record, and a resumed study is compared with it.
"""

from dataclasses import dataclass
from typing import Self

import optuna

_ATTRIBUTE = "start"


@dataclass(frozen=True)
class StudyOrigin:
    """Origin of a study, besides its config and its search space.

    `fingerprint`: of the processed data. `n_segments`: segments of an epoch. `fixed_paths`: config
    paths that the user set, so that they are not searched.
    """

    fingerprint: str = ""
    n_segments: int = 1
    fixed_paths: tuple[str, ...] = ()

    @classmethod
    def of(cls, study: optuna.Study) -> Self:
        """Return the origin that is stored in an Optuna study, with defaults for missing values."""
        stored = study.user_attrs.get(_ATTRIBUTE, {})
        default = cls()
        return cls(
            stored.get("fingerprint", default.fingerprint),
            stored.get("parts", default.n_segments),
            tuple(stored.get("decided", default.fixed_paths)),
        )

    def store(self, study: optuna.Study) -> None:
        """Store the origin in an Optuna study, under the keys that earlier versions read."""
        stored = {
            "fingerprint": self.fingerprint,
            "parts": self.n_segments,
            "decided": list(self.fixed_paths),
        }
        study.set_user_attr(_ATTRIBUTE, stored)
