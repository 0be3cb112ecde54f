"""WarpRec 2.2.8, through its design pipeline for the single model and its train pipeline's search.

WarpRec's `batch_size` counts samples, with positives and negatives mixed.
"""

import functools
import json
import time
from pathlib import Path
from typing import Any

from benchmarks.peers import task
from benchmarks.peers.answering import Answer, answer, rate, read_pairs

RESULTS = Path("warprec")


def train(positives: int) -> Answer:
    """Measure the samples per second of one epoch of Lightning, without its set-up."""
    import lightning
    import torch

    torch.set_num_threads(1)
    dataset, model, _ = _build(positives)
    model.set_optimization_parameters(optimizer_config=None, lr_scheduler_config=None)
    rows = model.get_dataloader(
        interactions=dataset.train_set, sessions=dataset.train_session, num_workers=0, seed=0
    )
    clock = _make_clock()
    lightning.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        callbacks=[clock],
    ).fit(model.train(), train_dataloaders=rows)
    return {"per_second": len(rows.dataset) / clock.seconds}


def rank() -> Answer:
    """Measure the users per second, with all items ranked."""
    import torch
    from warprec.evaluation import build_evaluator
    from warprec.utils.helpers import (
        build_evaluation_dataloader_kwargs,
        retrieve_evaluation_dataloader,
    )

    torch.set_num_threads(1)
    dataset, model, config = _build(task.POSITIVES)
    evaluator = build_evaluator(config.evaluation, dataset, None)
    settings = build_evaluation_dataloader_kwargs(num_workers=0, device="cpu", reuse_loader=True)
    loader = retrieve_evaluation_dataloader(
        dataset=dataset, model=model, strategy="full", **settings
    )

    def evaluate() -> None:
        with torch.inference_mode():
            evaluator.evaluate(
                model=model.eval(),
                dataloader=loader,
                strategy="full",
                dataset=dataset,
                device="cpu",
            )
        evaluator.compute_results()

    return rate(evaluate, len(read_pairs("validation")[0]))


def draw() -> Answer:
    """Measure the negatives per second of its sampler, which draws one at a time."""
    dataset, model, _ = _build(task.POSITIVES)
    rows = model.get_dataloader(
        interactions=dataset.train_set, sessions=dataset.train_session, num_workers=0, seed=0
    ).dataset
    users = [user for user in rows.user_ids.tolist() for _ in range(task.N_NEGATIVES)]
    return rate(lambda: [rows.sampler.sample(user) for user in users], len(users))


def search() -> Answer:
    """Search with Optuna and ASHA on Ray, with half of the trials for each of the two models."""
    from warprec.pipelines import train_pipeline

    path = _write_config("search", task.POSITIVES, None)
    start = time.perf_counter()
    train_pipeline(str(path))
    seconds = time.perf_counter() - start
    # Tune writes a line into a trial's result.json for each epoch that was trained and scored.
    reports = [
        line
        for file in RESULTS.rglob("result.json")
        for line in file.read_text(encoding="utf-8").splitlines()
    ]
    return {"epochs": len(reports), "seconds": seconds}


@functools.cache
def _build(positives: int) -> tuple[Any, Any, Any]:
    from warprec.common import initialize_datasets
    from warprec.data.reader import ReaderFactory
    from warprec.utils.callback import WarpRecCallback
    from warprec.utils.config import load_design_configuration
    from warprec.utils.registry import model_registry

    config = load_design_configuration(
        str(_write_config(f"training-{positives}", positives, task.DIM))
    )
    reader = ReaderFactory.get_reader(config=config)
    dataset, _, _ = initialize_datasets(reader=reader, callback=WarpRecCallback(), config=config)
    model = model_registry.get(
        name="NeuMF",
        params=config.models["NeuMF"],
        interactions=dataset.train_set,
        sessions=dataset.train_session,
        info=dataset.info(),
        seed=0,
    )
    return dataset, model, config


def _make_clock() -> Any:
    from lightning.pytorch.callbacks import Callback

    class Clock(Callback):  # type: ignore[misc]
        """Seconds of the training epoch."""

        seconds = 0.0

        def on_train_epoch_start(self, *_: object) -> None:
            self.seconds = -time.perf_counter()

        def on_train_epoch_end(self, *_: object) -> None:
            self.seconds += time.perf_counter()

    return Clock()


def _write_config(name: str, positives: int, dim: int | None) -> Path:
    """Write the configuration of one model of width `dim`, or of a search if None."""
    folder = Path("warprec-split")
    folder.mkdir(exist_ok=True)
    for split in task.SPLITS:
        rows = (f"{user}\t{item}\n" for user, item in zip(*read_pairs(split), strict=True))
        (folder / f"{split}.tsv").write_text("user_id\titem_id\n" + "".join(rows), encoding="utf-8")
    config = {
        "reader": {
            "loading_strategy": "split",
            "data_type": "transaction",
            "reading_method": "local",
            "rating_type": "implicit",
            "split": {"local_path": str(folder)},
        },
        "writer": {
            "dataset_name": name,
            "writing_method": "local",
            "local_experiment_path": str(RESULTS),
        },
        "evaluation": {"top_k": [10], "metrics": ["nDCG"], "validation_metric": "nDCG@10"},
        "general": {"ray_address": "local"},
        "models": _search_models(positives)
        if dim is None
        else {"NeuMF": _neumf(positives) | _widths(dim)},
    }
    path = Path(f"{name}.yaml")
    path.write_text(json.dumps(config), encoding="utf-8")
    return path


def _neumf(positives: int) -> dict[str, Any]:
    return {
        "mlp_hidden_size": list(task.TOWER),
        "mf_train": True,
        "mlp_train": True,
        "dropout": 0.0,
        "reg_weight": 0.0,
        "weight_decay": 0.0,
        "batch_size": positives * (1 + task.N_NEGATIVES),
        "epochs": 1,
        "learning_rate": 1e-3,
        "neg_samples": task.N_NEGATIVES,
    }


def _widths(dim: int) -> dict[str, int]:
    return {"mf_embedding_size": dim, "mlp_embedding_size": dim}


def _search_models(positives: int) -> dict[str, Any]:
    """Return NeuMF and WarpRec's inner product, BPR.

    BPR has one negative per positive, so its batch size counts positives.
    """
    dims, rates = ["choice", *task.DIMS], ["loguniform", *task.LEARNING_RATES]
    common = {
        "epochs": task.EPOCHS,
        "learning_rate": rates,
        "optimization": {
            "strategy": "optuna",
            "scheduler": "asha",
            "num_samples": task.TRIALS // 2,
            "properties": {"max_t": task.EPOCHS, "grace_period": 1, "reduction_factor": 3},
        },
    }
    neumf = _neumf(positives) | {
        "mlp_hidden_size": [list(task.TOWER)],
        "mf_embedding_size": dims,
        "mlp_embedding_size": dims,
    }
    return {
        "NeuMF": neumf | common,
        "BPR": {"embedding_size": dims, "reg_weight": 0.0, "batch_size": positives} | common,
    }


if __name__ == "__main__":
    answer({"training": train, "ranking": rank, "negatives": draw, "search": search})
