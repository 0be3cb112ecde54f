"""Where the record lies: one Optuna study in an SQLite file, and the sampler that proposes from it."""

import logging
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import optuna

from recsys.config import Config

optuna.logging.set_verbosity(optuna.logging.WARNING)
logging.getLogger("alembic").setLevel(logging.WARNING)

SAMPLERS: dict[str, Callable[..., optuna.samplers.BaseSampler]] = {
    "tpe": partial(optuna.samplers.TPESampler, multivariate=True, group=True, constant_liar=True),
    "random": optuna.samplers.RandomSampler,
    "qmc": partial(optuna.samplers.QMCSampler, scramble=True, warn_independent_sampling=False),
}
PARTS = "parts"
"""The study's attribute with the steps of an epoch."""
_STUDY_NAME = "study"


def create_study(folder: Path, config: Config, parts: int) -> optuna.Study:
    """A new, empty study in the folder's storage, whose epochs report in `parts` steps."""
    sampler = _sampler(config, n_trials=0)
    study = optuna.create_study(storage=_storage(folder), study_name=_STUDY_NAME, sampler=sampler, direction="maximize")
    study.set_user_attr(PARTS, parts)
    return study


def reopen_study(folder: Path, config: Config) -> optuna.Study:
    """The study of a folder, to go on with.

    Raises:
        FileNotFoundError: if the folder holds no study.
    """
    study = load_study(folder)
    study.sampler = _sampler(config, len(study.get_trials(deepcopy=False)))
    return study


def _sampler(config: Config, n_trials: int) -> optuna.samplers.BaseSampler:
    """The sampler of a study that has `n_trials` trials."""
    seed = config.study.seed
    if n_trials and config.study.sampler != "qmc":
        # Not to draw again what was drawn at first. The quasi-random sequence knows its place, and needs its seed.
        seed = int(np.random.SeedSequence((seed, n_trials)).generate_state(1)[0])
    with warnings.catch_warnings():
        # Multivariate, group and quasi-random sampling are used on purpose.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return SAMPLERS[config.study.sampler](seed=seed)


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
