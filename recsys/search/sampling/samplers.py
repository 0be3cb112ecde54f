"""Samplers of a study by name: recsys's own, and Optuna's with the options that a search needs."""

import warnings

import numpy as np
import optuna

from recsys.config.components import SAMPLERS, code_of
from recsys.config.schema import Config
from recsys.search.costs.predict import Predictor
from recsys.search.record.study_record import StudyRecord


def tpe(seed: int, *_: object) -> optuna.samplers.BaseSampler:
    """Return TPE over groups of parameters that occur together, for concurrent trials."""
    return optuna.samplers.TPESampler(multivariate=True, group=True, constant_liar=True, seed=seed)


def random(seed: int, *_: object) -> optuna.samplers.BaseSampler:
    """Return a random search."""
    return optuna.samplers.RandomSampler(seed=seed)


def qmc(seed: int, *_: object) -> optuna.samplers.BaseSampler:
    """Return a scrambled quasi-random sequence."""
    return optuna.samplers.QMCSampler(scramble=True, warn_independent_sampling=False, seed=seed)


def make_sampler(
    config: Config, record: StudyRecord, costs: Predictor
) -> optuna.samplers.BaseSampler:
    """Return the sampler that `study.sampler` names, for the next trials of a study.

    `record`: of the study. `costs`: predicts the time of an epoch.
    """
    seed = config.study.seed
    n_trials = len(record.summaries())
    if n_trials and config.study.sampler != "qmc":
        # A resumed study must not draw its first draws again. A quasi-random sequence resumes
        # by itself, and only with the same seed.
        seed = int(np.random.SeedSequence((seed, n_trials)).generate_state(1)[0])
    with warnings.catch_warnings():
        # Multivariate, grouped and quasi-random sampling are experimental in Optuna.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        make = code_of(SAMPLERS[config.study.sampler])
        sampler: optuna.samplers.BaseSampler = make(seed, record, costs)
        return sampler
