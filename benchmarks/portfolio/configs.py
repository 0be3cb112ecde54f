"""The configs that are run on every data set.

First the search's earlier starts, then sampled ones, then proposals of TPE for one data set after
another, so that the best configs of each are among them.
"""

import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import optuna
from optuna.trial import TrialState

from benchmarks.shapes import SHAPES
from recsys.config.schema import Config
from recsys.search.space.search_space import SearchSpace

SEED = 0
N_SAMPLED = 23
"""Configs before the first proposal of TPE."""
EARLIER_STARTS: tuple[dict[str, Any], ...] = (
    {
        "model.name": "inner_product",
        "training.loss": "softmax",
        "training.negative_sampling": "all",
        "model.embedding_dim": 128,
        "model.init_std": 0.05,
        "training.n_negatives": 100,
        "training.l2": 0.02,
        "training.learning_rate": 1e-2,
        "training.learning_rate_decay": "linear",
        "training.batch_size": 1024,
    },
    {
        "model.name": "inner_product",
        "training.loss": "squared",
        "model.embedding_dim": 128,
        "training.n_negatives": 16,
        "training.l2": 0.1,
    },
)
"""Warm starts of `search_spaces/ncf.yaml` before the portfolio, in its order."""
_FAMILY = ("model.name", "training.loss", "training.negative_sampling")
N_FAMILIES = 15
"""Combinations of variant, loss and sampling in the space."""


def proposed_for(name: str, n_configs: int) -> set[int]:
    """Return the numbers of the first configs that TPE proposed for a data set."""
    return {number for number in range(N_SAMPLED, n_configs) if set_of(number) == name}


def set_of(number: int) -> str:
    """Return the data set for which TPE proposes a config."""
    return list(SHAPES)[number % len(SHAPES)]


def family(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a config's variant, loss and sampling of negatives."""
    return tuple(str(config.get(path)) for path in _FAMILY)


def sampled_configs(space: SearchSpace) -> Iterator[dict[str, Any]]:
    """Return configs without end: the default, the earlier starts, then sampled ones.

    Each family is sampled as often as the others, and inner products, whose runs are cheap, twice
    as often.
    """
    yield dict(space.point(Config()))
    yield from EARLIER_STARTS
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=SEED))
    while True:
        counts: Counter[tuple[str, ...]] = Counter()
        waiting = list[dict[str, Any]]()
        while len(counts) < N_FAMILIES or any(counts[key] < _quota(key) for key in counts):
            config = space.suggest(study.ask())
            key = family(config)
            counts[key] += 1
            if counts[key] <= _quota(key):
                waiting.append(dict(config))
        yield from waiting


def propose(
    space: SearchSpace, tried: Sequence[Mapping[str, Any]], values: Sequence[float | None]
) -> dict[str, Any]:
    """Return the proposal of TPE for a data set, from the values of the configs there.

    None is the value of a run that diverged.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(multivariate=True, group=True, seed=len(tried))
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for config, value in zip(tried, values, strict=True):
        study.enqueue_trial(space.by_name(config))
        trial = study.ask()
        space.suggest(trial)
        study.tell(trial, value, state=None if value is not None else TrialState.FAIL)
    return dict(space.suggest(study.ask()))


def _quota(key: tuple[str, ...]) -> int:
    return 2 if key[0] == "inner_product" else 1
