"""The final trainings, one a seed: in this process, or side by side on the nodes of the cluster that is joined.

Stands between final training and what trains. On a cluster the head need not have what a trial asks for, such as a GPU.
"""

from collections.abc import Callable, Iterator, Sequence

import ray
import torch

from recsys.cluster.connection import cluster_address
from recsys.cluster.resources import join, task_options
from recsys.config.schema import Config
from recsys.console.verbosity import NORMAL, VERBOSE, set_verbosity, shows_progress
from recsys.data.interactions import Interactions
from recsys.errors import InputError
from recsys.final.train import Trained, device_of

Train = Callable[[Config, Interactions, int, int | None], Trained]
"""Trains a config on data with a seed, for a number of epochs; where it is None, for as many as the config says."""


def require_device(config: Config) -> None:
    """Check that the trainings can have what the config asks for, before the data are prepared.

    Raises:
        InputError: if there is no cluster at the address, or one of other versions; if no node of the cluster, or this machine
            without one, has it.
    """
    if cluster_address(config) is None:
        device_of(config)
    else:
        join(config)


def run(
    train: Train, config: Config, data: Interactions, seeds: Sequence[int], n_epochs: int | None
) -> Iterator[Trained]:
    """Train with each seed; what was trained comes in the order of the seeds, from a node with its model on the CPU.

    Raises:
        DivergenceError: if a training diverges.
    """
    if cluster_address(config) is None:
        yield from (_train(train, config, data, seed, n_epochs) for seed in seeds)
        return
    task = ray.remote(_train_there).options(**task_options(config))
    there = ray.put(data)
    level = VERBOSE if shows_progress() else NORMAL
    results = [task.remote(train, config, there, seed, n_epochs, level) for seed in seeds]
    for result in results:
        try:
            trained = ray.get(result)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, InputError):
                raise error.cause from None  # Ray has put a traceback around it
            raise
        yield trained


def _train(
    train: Train, config: Config, data: Interactions, seed: int, n_epochs: int | None
) -> Trained:
    torch.set_num_threads(max(1, int(config.resources.cpu)))
    return train(config, data, seed, n_epochs)


def _train_there(  # noqa: PLR0917 (Ray's types know no keywords)
    train: Train, config: Config, data: Interactions, seed: int, n_epochs: int | None, level: int
) -> Trained:
    set_verbosity(level)  # Ray brings the lines of other machines here
    trained = _train(train, config, data, seed, n_epochs)
    trained.model.cpu()
    return trained
