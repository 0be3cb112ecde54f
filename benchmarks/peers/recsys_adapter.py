"""recsys itself, through `fit`, `rank_all`, the sampler and the command `python -m recsys.tune`."""

import functools
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.peers import task
from benchmarks.peers.answering import Answer, answer, data_file, rate, read_pairs

if TYPE_CHECKING:
    from recsys.config.schema import Config
    from recsys.data.interactions import Interactions
    from recsys.training.fit import Epoch


def train(positives: int) -> Answer:
    """Measure the samples per second of `fit`, positives and negatives."""
    epochs = _epochs(positives)
    return rate(lambda: next(epochs), len(_data().user) * (1 + task.N_NEGATIVES))


def rank() -> Answer:
    """Measure the users per second, with all items ranked."""
    import torch

    from recsys.evaluation.evaluate import evaluate
    from recsys.evaluation.scorers import ModelScorer
    from recsys.models import build_model

    torch.set_num_threads(1)
    data, config = _data(), _config(task.POSITIVES)
    assert data.held_out is not None
    model = build_model(
        config.model, data.n_users, data.n_items, torch.Generator().manual_seed(0)
    ).eval()
    return rate(
        lambda: evaluate(ModelScorer(model, data.n_items), data, config), len(data.held_out.user)
    )


def draw() -> Answer:
    """Measure the negatives per second."""
    import torch

    from recsys.training.negatives import TorchNegativeSampler

    torch.set_num_threads(1)
    data, generator = _data(), torch.Generator().manual_seed(0)
    sampler, user = TorchNegativeSampler(data.seen, None, "cpu"), torch.from_numpy(data.user).long()
    return rate(
        lambda: sampler.sample(user, task.N_NEGATIVES, generator), len(user) * task.N_NEGATIVES
    )


def search() -> Answer:
    """Search by the command, which prepares the data if the folder holds none.

    `seconds` counts from the first batch to the end of the last trial.
    """
    low, high = task.LEARNING_RATES
    space = {
        "model.name": {"choices": ["neumf", "inner_product"]},
        "model.embedding_dim": {"choices": list(task.DIMS)},
        "training.learning_rate": {"low": low, "high": high, "log": True},
    }
    Path("space.yaml").write_text(json.dumps({"parameters": space}), encoding="utf-8")
    files = {split: str(data_file(split)) for split in task.SPLITS}
    settings = {
        "data.files": files,
        "training.batch_size": task.POSITIVES,
        "training.n_negatives": task.N_NEGATIVES,
    }
    flags = [
        flag
        for path, value in settings.items()
        for flag in ("--set", f"{path}={json.dumps(value)}")
    ]
    limits = [
        "--trials",
        str(task.TRIALS),
        "--max-epochs",
        str(task.EPOCHS),
        "--concurrent",
        str(task.CONCURRENT),
    ]
    command = [
        sys.executable,
        "-m",
        "recsys.tune",
        "--space",
        "space.yaml",
        "--dir",
        "experiments",
        "--json",
        *limits,
        *flags,
    ]
    found = json.loads(
        subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True).stdout
    )
    return {
        "epochs": sum(trial["epochs"] for trial in found["trials"]),
        "seconds": found["wall_seconds"],
    }


@functools.cache
def _epochs(positives: int) -> Iterator["Epoch"]:
    import torch

    from recsys.training.fit import fit

    torch.set_num_threads(1)
    return fit(_config(positives), _data(), 0, rank=False)


def _config(positives: int) -> "Config":
    from recsys.config.schema import Config

    model = {"name": "neumf", "embedding_dim": task.DIM, "n_layers": len(task.TOWER)}
    training = {"batch_size": positives, "n_negatives": task.N_NEGATIVES, "max_epochs": 100_000}
    return Config.model_validate({"model": model, "training": training})


@functools.cache
def _data() -> "Interactions":
    import numpy as np

    from recsys.data.interactions import HeldOut, Interactions
    from recsys.data.negatives import index_pairs

    ids = {split: np.array(read_pairs(split), dtype=np.int32) for split in task.SPLITS}
    (users, items), none = np.concatenate(list(ids.values()), axis=1), np.empty(0, dtype=np.int32)
    n_users, n_items = int(users.max()) + 1, int(items.max()) + 1
    (user, item), (held_user, held_item) = ids["train"], ids["validation"]
    seen = index_pairs(user, item, n_users, n_items)
    held_out = HeldOut(held_user, held_item, none, none, None, None)
    return Interactions(n_users, n_items, user, item, None, none, none, seen, held_out)


if __name__ == "__main__":
    answer({"training": train, "ranking": rank, "negatives": draw, "search": search})
