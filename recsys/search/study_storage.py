"""Where the record lies: one Optuna study in an SQLite file, and the sampler that proposes from it."""

import dataclasses
import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
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
_STUDY_NAME = "study"
_START = "start"


@dataclass(frozen=True)
class Start:
    """What a study is started with beside its config and its space.

    `fingerprint`: of the processed data. `parts`: steps that an epoch reports in. `decided`: config paths that flags and `--set`
    took out of the space file.
    """

    fingerprint: str = ""
    parts: int = 1
    decided: tuple[str, ...] = ()


def create_study(folder: Path, config: Config, start: Start) -> optuna.Study:
    """A new, empty study in the folder's storage."""
    sampler = _sampler(config, n_trials=0)
    study = optuna.create_study(storage=_storage(folder), study_name=_STUDY_NAME, sampler=sampler, direction="maximize")
    study.set_user_attr(_START, dataclasses.asdict(start))
    return study


def start_of(study: optuna.Study) -> Start:
    """What a study was started with."""
    found = study.user_attrs.get(_START, {})
    return Start(**{**found, "decided": tuple(found.get("decided", ()))})


def read_start(folder: Path) -> Start:
    """What the study of a folder was started with.

    Raises:
        FileNotFoundError: if the folder holds no study.
    """
    return start_of(load_study(folder))


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
    require_study(folder)
    return optuna.load_study(storage=_storage(folder), study_name=_STUDY_NAME)


def require_study(folder: Path) -> None:
    """Check that there is a study in this folder.

    Raises:
        FileNotFoundError: if there is none.
    """
    if not (folder / "optuna.db").is_file():
        known = sorted(path.parent.name for path in folder.parent.glob("[!.]*/optuna.db"))
        raise FileNotFoundError(
            f"{folder}: must be a study, but got no record of one. "
            + (f"Studies here are {', '.join(known)}." if known else "Start one with python -m recsys.tune.")
        )


def _storage(folder: Path) -> optuna.storages.RDBStorage:
    return optuna.storages.RDBStorage(f"sqlite:///{(folder / 'optuna.db').resolve()}")
