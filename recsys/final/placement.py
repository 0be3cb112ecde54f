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
from recsys.final.choose import Choice
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


def run(train: Train, choices: Sequence[Choice], data: Interactions) -> Iterator[Trained]:
    """Train each choice with its seed for its epochs, and yield the results in the same order.

    All are of one study or config, and so ask for the same resources. On a cluster the trainings
    run side by side, and their models return on the CPU.

    Raises:
        DivergenceError: if a training diverges.
    """
    config = choices[0].config
    if cluster_address(config) is None:
        for choice in choices:
            yield _train(train, choice, data)
        return
    task = ray.remote(_train_on_node).options(**task_options(config))
    stored = ray.put(data)  # one copy per node, not one per task
    level = VERBOSE if shows_progress() else NORMAL
    results = [task.remote(train, choice, stored, level) for choice in choices]
    for result in results:
        try:
            yield ray.get(result)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, InputError):
                raise error.cause from None  # without the traceback that Ray puts around it
            raise


def _train(train: Train, choice: Choice, data: Interactions) -> Trained:
    torch.set_num_threads(max(1, int(choice.config.resources.cpu)))
    return train(choice.config, data, choice.seed, choice.n_epochs)


def _train_on_node(train: Train, choice: Choice, data: Interactions, level: int) -> Trained:
    set_verbosity(level)  # Ray prints the lines of its tasks on the driver
    trained = _train(train, choice, data)
    trained.model.cpu()
    return trained
