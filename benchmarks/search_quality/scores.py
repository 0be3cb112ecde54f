"""Values on all validation users, of most popular items and of what searches held for their best.

A search that ranks a sample of the users ranks all of them only where a trial trains to its end. A
trial without such a value is trained again, in the way and from the seed that it had: on one thread
that gives the same weights, which `difference` checks.
"""

import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import torch

from benchmarks.search_quality.outcome import Record, Scores
from benchmarks.shapes import write_shape
from recsys.config.files import load_config
from recsys.config.schema import Config, replace_values
from recsys.data.interactions import Interactions
from recsys.data.preprocessing import pipeline
from recsys.data.processed import load
from recsys.data.resolve import resolve
from recsys.evaluation.baselines import popularity_of
from recsys.evaluation.evaluate import evaluate
from recsys.evaluation.scorers import scorer_of
from recsys.training.fit import fit

N_PROCESSES = 2


@dataclass(frozen=True)
class Scored:
    """Values on all users, and the largest difference of a trial's own values trained again."""

    scores: Scores
    difference: float = 0.0


def prepare(name: str, public: Path, folder: Path) -> Path:
    """Write and process a data set, and return its config file."""
    _, config = write_shape(name, public, folder)
    command = [sys.executable, "-m", "recsys.preprocess"]
    flags = ["--config", str(config), "--dir", str(folder)]
    subprocess.run([*command, *flags], stdout=subprocess.DEVNULL, check=True)
    return config


def popular_value(config_file: Path, folder: Path) -> float:
    """Return the value of most popular items on a data set."""
    with _processes() as pool:
        return pool.submit(_popular_value, config_file, folder).result()


def score(record: Record, folder: Path) -> Scored:
    """Return the values of all that `to_score` names; `folder` holds the data set."""
    wanted = record.to_score()
    recorded = {(report.trial, report.epoch): report.value for report in record.reports}
    if record.ranks_all:
        return Scored({key: recorded[key] for key in wanted})
    known = {(report.trial, report.epoch): report.value for report in record.on_all_users}
    epochs: dict[int, set[int]] = {}
    for number, epoch in wanted - known.keys():
        epochs.setdefault(number, set()).add(epoch)
    with _processes() as pool:
        futures = {
            number: pool.submit(_train_again, *record.trials[number], epochs[number], folder)
            for number in epochs
        }
        again = {
            (number, epoch): values
            for number, future in futures.items()
            for epoch, values in future.result().items()
        }
    differences = [abs(recorded[key] - value) for key, (value, _) in again.items()]
    scores = known | {key: on_all for key, (_, on_all) in again.items()}
    return Scored(scores, max(differences, default=0.0))


def _processes() -> ProcessPoolExecutor:
    """Return processes that have the threads of torch to themselves."""
    return ProcessPoolExecutor(N_PROCESSES, get_context("spawn"))


def _train_again(
    seed: int, config_json: str, epochs: set[int], folder: Path
) -> dict[int, tuple[float, float]]:
    """Return by epoch the value that a trial reported and its value on all users."""
    torch.set_num_threads(1)
    config = Config.model_validate_json(config_json)
    config = replace_values(config, {"data.source": str(folder / config.data.source)})
    config, data = _load(config, folder)
    found = {}
    for step in fit(config, data, seed, n_epochs=max(epochs)):
        if step.whole and step.epoch in epochs:
            found[step.epoch] = (
                step.metrics[config.metric_name],
                _value(evaluate(scorer_of(step.state.model, data), data, config), config),
            )
    return found


def _popular_value(config_file: Path, folder: Path) -> float:
    config, data = _load(load_config(config_file), folder)
    return _value(evaluate(popularity_of(data), data, config), config)


def _load(config: Config, folder: Path) -> tuple[Config, Interactions]:
    processed = pipeline.prepare(config, folder)
    config = resolve(config, processed.manifest)
    return config, load(processed, "validation", not config.training.resample_negatives)


def _value(values: dict[str, float], config: Config) -> float:
    return values[config.metric_name.removeprefix("val_")]
