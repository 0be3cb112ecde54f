"""Placement of the final trainings: in this process, or as tasks on the nodes of a cluster.

On a cluster, the head may lack the resources that a training asks for, such as a GPU.
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
"""Training of a config on data, with a seed, for a number of epochs (None: as the config says)."""


def require_device(config: Config) -> None:
    """Check that the trainings can have the device that the config asks for, and join the cluster.

    Raises:
        InputError: if the config names no cluster and this machine lacks the device; if no cluster
            is at the address, its versions differ, or none of its nodes has the device.
    """
    if cluster_address(config) is None:
        device_of(config)
    else:
        join(config)


def run(
    train: Train, config: Config, data: Interactions, seeds: Sequence[int], n_epochs: int | None
) -> Iterator[Trained]:
    """Train with each seed, and yield the results in the order of the seeds.

    On a cluster the trainings run side by side, and their models return on the CPU.

    Raises:
        DivergenceError: if a training diverges.
    """
    if cluster_address(config) is None:
        for seed in seeds:
            yield _train(train, config, data, seed, n_epochs)
        return
    task = ray.remote(_train_on_node).options(**task_options(config))
    stored = ray.put(data)  # one copy per node, not one per task
    level = VERBOSE if shows_progress() else NORMAL
    results = [task.remote(train, config, stored, seed, n_epochs, level) for seed in seeds]
    for result in results:
        try:
            yield ray.get(result)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, InputError):
                raise error.cause from None  # without the traceback that Ray puts around it
            raise


def _train(
    train: Train, config: Config, data: Interactions, seed: int, n_epochs: int | None
) -> Trained:
    torch.set_num_threads(max(1, int(config.resources.cpu)))
    return train(config, data, seed, n_epochs)


def _train_on_node(  # noqa: PLR0917 (the types of Ray's `remote` have no keyword arguments)
    train: Train, config: Config, data: Interactions, seed: int, n_epochs: int | None, level: int
) -> Trained:
    set_verbosity(level)  # Ray prints the lines of its tasks on the driver
    trained = _train(train, config, data, seed, n_epochs)
    trained.model.cpu()
    return trained
