"""RecBole 1.2.1, through its configuration, its trainer and its `HyperTuning`.

`train_batch_size` counts samples: a step has `train_batch_size` / (1 + `sample_num`) positives, or
in BPR `train_batch_size` / `sample_num`. `eval_batch_size` counts scores; RecBole ranks fastest
with one user per step, which here also follows from its default of 4,096.
"""

import functools
import logging
import math
import os
import time
from pathlib import Path
from typing import Any

from benchmarks.peers import task
from benchmarks.peers.answering import Answer, answer, rate, read_pairs

DATASET = "peers"


def train(positives: int) -> Answer:
    """Measure the samples per second of the trainer's epochs."""
    trainer, (rows, _, _) = _trainer(positives)
    n_samples = len(read_pairs("train")[0]) * (1 + task.N_NEGATIVES)
    return rate(lambda: trainer._train_epoch(rows, 0), n_samples)


def rank() -> Answer:
    """Measure the users per second, with all items ranked."""
    trainer, (_, validation, _) = _trainer(task.POSITIVES)
    return rate(
        lambda: trainer.evaluate(validation, load_best_model=False),
        len(read_pairs("validation")[0]),
    )


def draw() -> Answer:
    """Measure the negatives per second of its sampler."""
    _, (rows, _, _) = _trainer(task.POSITIVES)
    feature = rows._dataset.inter_feat
    user, item = (feature[name].numpy() for name in ("user_id", "item_id"))
    return rate(
        lambda: rows._sampler.sample_by_user_ids(user, item, task.N_NEGATIVES),
        len(user) * task.N_NEGATIVES,
    )


def search() -> Answer:
    """Search with hyperopt's TPE: one trial after the other, on one thread, as two are slower."""
    import torch
    from hyperopt import hp
    from recbole.quick_start import objective_function
    from recbole.trainer import HyperTuning

    torch.set_num_threads(1)
    # Without this, current PyTorch refuses RecBole's checkpoints, which hold its config.
    os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] = "1"
    low, high = task.LEARNING_RATES
    space = {
        "model": hp.choice("model", ["NeuMF", "BPR"]),
        "dim": hp.choice("dim", list(task.DIMS)),
        "learning_rate": hp.loguniform("learning_rate", math.log(low), math.log(high)),
    }
    tuning = HyperTuning(
        lambda params, _: objective_function(_settings(task.POSITIVES, **params)),
        space=space,
        algo="bayes",
        max_evals=task.TRIALS,
        early_stop=task.TRIALS,
    )
    start = time.perf_counter()
    tuning.run()
    # RecBole prunes no trial.
    return {"epochs": task.TRIALS * task.EPOCHS, "seconds": time.perf_counter() - start}


@functools.cache
def _trainer(positives: int) -> tuple[Any, Any]:
    import torch
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.trainer import Trainer
    from recbole.utils import get_model, init_seed

    torch.set_num_threads(1)
    config = Config(config_dict=_settings(positives, "NeuMF", task.DIM, 1e-3))
    init_seed(config["seed"], config["reproducibility"])
    splits = data_preparation(config, create_dataset(config))
    return Trainer(config, get_model("NeuMF")(config, splits[0]._dataset)), splits


def _settings(positives: int, model: str, dim: int, learning_rate: float) -> dict[str, Any]:
    _write_dataset()
    samples = task.N_NEGATIVES if model == "BPR" else 1 + task.N_NEGATIVES
    n_items = len({item for split in task.SPLITS for item in read_pairs(split)[1]})
    return {
        "model": model,
        "dataset": DATASET,
        "data_path": str(Path.cwd()),
        "benchmark_filename": list(task.SPLITS),
        "load_col": {"inter": ["user_id", "item_id"]},
        "use_gpu": False,
        "state": "ERROR",
        "show_progress": False,
        "embedding_size": dim,
        "mf_embedding_size": dim,
        "mlp_embedding_size": dim,
        "mlp_hidden_size": [width * dim // task.DIM for width in task.TOWER],
        "dropout_prob": 0.0,
        "learning_rate": learning_rate,
        "train_batch_size": positives * samples,
        "train_neg_sample_args": {"distribution": "uniform", "sample_num": task.N_NEGATIVES},
        "epochs": task.EPOCHS,
        "stopping_step": task.EPOCHS,
        "eval_args": {"group_by": "user", "order": "RO", "mode": "full"},
        "eval_batch_size": n_items + 1,
        "metrics": ["NDCG"],
        "topk": [10],
        "valid_metric": "NDCG@10",
    }


@functools.cache
def _write_dataset() -> None:
    logging.disable(logging.WARNING)
    folder = Path(DATASET)
    folder.mkdir(exist_ok=True)
    for split in task.SPLITS:
        rows = (f"{user}\t{item}\n" for user, item in zip(*read_pairs(split), strict=True))
        (folder / f"{DATASET}.{split}.inter").write_text(
            "user_id:token\titem_id:token\n" + "".join(rows), encoding="utf-8"
        )


if __name__ == "__main__":
    answer({"training": train, "ranking": rank, "negatives": draw, "search": search})
