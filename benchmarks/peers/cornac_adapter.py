"""Cornac 3.0.1, through its NeuMF on PyTorch, its `ranking_eval` and its data set's iterator.

The iterator draws the negatives. Cornac's NeuMF has one width for the product and for the tower's
last layer: 8, where the others' product is 16 wide. Its search neither prunes trials nor runs them
side by side.
"""

import functools
from collections import deque
from typing import Any

from benchmarks.peers import task
from benchmarks.peers.answering import Answer, answer, rate, read_pairs


def train(positives: int) -> Answer:
    """Measure the samples per second of `fit`, which also builds the model."""
    import torch

    torch.set_num_threads(1)
    rows = _splits()["train"]
    return rate(lambda: _model(positives).fit(rows), rows.num_ratings * (1 + task.N_NEGATIVES))


def rank() -> Answer:
    """Measure the users per second, with all items ranked."""
    import torch
    from cornac.eval_methods import ranking_eval
    from cornac.metrics import NDCG

    torch.set_num_threads(1)
    splits = _splits()
    model = _model(task.POSITIVES).fit(splits["train"])
    return rate(
        lambda: ranking_eval(model, [NDCG(k=10)], splits["train"], splits["validation"]),
        splits["validation"].num_ratings,
    )


def draw() -> Answer:
    """Measure the negatives per second of the iterator that training uses."""
    rows = _splits()["train"]
    return rate(
        lambda: deque(
            rows.uir_iter(task.POSITIVES, binary=True, num_zeros=task.N_NEGATIVES), maxlen=0
        ),
        rows.num_ratings * task.N_NEGATIVES,
    )


def _model(positives: int) -> Any:
    from cornac.models import NeuMF

    layers = (2 * task.DIM, *task.TOWER)
    return NeuMF(
        num_factors=layers[-1],
        layers=layers,
        num_epochs=1,
        batch_size=positives,
        num_neg=task.N_NEGATIVES,
        backend="pytorch",
        verbose=False,
        seed=0,
    )


@functools.cache
def _splits() -> dict[str, Any]:
    from cornac.data import Dataset

    pairs = {split: list(zip(*read_pairs(split), strict=True)) for split in task.SPLITS}
    users, items = (
        {pair[column]: None for rows in pairs.values() for pair in rows} for column in (0, 1)
    )
    maps = [{name: index for index, name in enumerate(names)} for names in (users, items)]
    return {
        split: Dataset.build(
            [(user, item, 1.0) for user, item in rows],
            global_uid_map=maps[0],
            global_iid_map=maps[1],
        )
        for split, rows in pairs.items()
    }


if __name__ == "__main__":
    answer({"training": train, "ranking": rank, "negatives": draw})
