"""Samplers of a study: Optuna's, with the options that the search needs."""

import warnings

import numpy as np
import optuna

from recsys.config.components import SAMPLERS, code_of
from recsys.config.schema import Config


def tpe(seed: int) -> optuna.samplers.BaseSampler:
    """Return TPE over groups of parameters that occur together, for concurrent trials."""
    return optuna.samplers.TPESampler(multivariate=True, group=True, constant_liar=True, seed=seed)


def random(seed: int) -> optuna.samplers.BaseSampler:
    """Return a random search."""
    return optuna.samplers.RandomSampler(seed=seed)


def qmc(seed: int) -> optuna.samplers.BaseSampler:
    """Return a scrambled quasi-random sequence."""
    return optuna.samplers.QMCSampler(scramble=True, warn_independent_sampling=False, seed=seed)


def make_sampler(config: Config, n_trials: int) -> optuna.samplers.BaseSampler:
    """Return the sampler that `study.sampler` names, for a study that has `n_trials` trials."""
    seed = config.study.seed
    if n_trials and config.study.sampler != "qmc":
        # A resumed study must not draw its first draws again. A quasi-random sequence resumes
        # by itself, and only with the same seed.
        seed = int(np.random.SeedSequence((seed, n_trials)).generate_state(1)[0])
    with warnings.catch_warnings():
        # Multivariate, grouped and quasi-random sampling are experimental in Optuna.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler: optuna.samplers.BaseSampler = code_of(SAMPLERS[config.study.sampler])(seed)
        return sampler
