"""The search of `soak` by Ray Tune alone, written as in its documentation.

It uses Tuner, OptunaSearch, ASHA, MLflow's callback and `Tuner.restore`.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from ray import tune
from ray.air.integrations.mlflow import MLflowLoggerCallback
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from benchmarks.soak import EPOCHS, SETTINGS
from recsys.cluster.connection import connect
from recsys.config.schema import Config, replace_values
from recsys.data.interactions import Interactions
from recsys.data.preprocessing.pipeline import prepare
from recsys.data.processed import load
from recsys.training.fit import fit


def train(values: dict[str, Any], base: str, data: Interactions) -> None:
    """Train one trial, which like those of recsys is too short for a checkpoint."""
    torch.set_num_threads(1)
    config = replace_values(Config.model_validate_json(base), values)
    for epoch in fit(config, data, seed=0):
        tune.report({**epoch.metrics, "epoch": epoch.epoch})


def main(folder: Path, trials: int) -> int:
    """Start or restore the search, write each trial's number of epochs, return the exit code."""
    base = replace_values(Config(), {**SETTINGS, "data.source": str(folder / "tiny.csv")})
    processed = prepare(base, folder)
    connect(base)
    data = load(processed, "validation", negatives=False)
    trainable = tune.with_resources(
        tune.with_parameters(train, base=base.model_dump_json(), data=data), {"cpu": 1}
    )
    experiment = folder / "ray" / "soak"
    # Without such a file `Tuner.can_restore` returns True, but `Tuner.restore` fails.
    if any(experiment.glob("experiment_state-*.json")):
        tuner = tune.Tuner.restore(str(experiment), trainable, resume_unfinished=True)
    else:
        tuner = new_tuner(trainable, folder, trials)
    results = tuner.fit()
    epochs = {
        f"train_{result.metrics['trial_id']}": result.metrics["training_iteration"]
        for result in results
        if result.metrics
    }
    (folder / "result.json").write_text(json.dumps(epochs))
    return 0


def new_tuner(trainable: Any, folder: Path, trials: int) -> tune.Tuner:
    """Return a new search."""
    space = {
        "model.embedding_dim": tune.randint(4, 17),
        "training.learning_rate": tune.loguniform(1e-3, 3e-1),
    }
    return tune.Tuner(
        trainable,
        param_space=space,
        tune_config=tune.TuneConfig(
            metric="val_ndcg_at_10",
            mode="max",
            search_alg=OptunaSearch(),
            scheduler=ASHAScheduler(max_t=EPOCHS, grace_period=1, reduction_factor=3),
            num_samples=trials,
            max_concurrent_trials=2,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="soak",
            storage_path=str(folder / "ray"),
            callbacks=[
                MLflowLoggerCallback(f"sqlite:///{folder / 'mlflow.db'}", experiment_name="soak")
            ],
            failure_config=tune.FailureConfig(max_failures=3),
            verbose=0,
        ),
    )


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
