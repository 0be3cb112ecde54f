"""The trainings of a chosen config, one per seed, and the data and baselines that go with them."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from recsys.config.schema import Config
from recsys.console.verbosity import progress
from recsys.data.interactions import Interactions
from recsys.data.processed import Processed, load
from recsys.data.splits import HeldOutSplit
from recsys.evaluation.baselines import score_baselines
from recsys.final import placement
from recsys.final.choose import Choice
from recsys.final.train import Trained, train_for_test, train_for_validation


@dataclass(frozen=True)
class Trainings:
    """The trainings of one config.

    Attributes:
        split: the split that scored them.
        seeds: their seeds.
        trained: the trained models, in the order of the seeds.
        data: the interactions that all of them trained on.
        baselines: the metrics of each baseline on the same split.
    """

    split: HeldOutSplit
    seeds: Sequence[int]
    trained: Sequence[Trained]
    data: Interactions
    baselines: dict[str, Any]

    @property
    def first(self) -> Trained:
        """The model of the first seed, which is saved."""
        return self.trained[0]

    @property
    def mean(self) -> dict[str, float]:
        """The mean of each metric over the seeds."""
        return {
            name: statistics.fmean(trained.metrics[name] for trained in self.trained)
            for name in self.first.metrics
        }


def train_seeds_for_validation(
    choice: Choice, processed: Processed, seeds: Sequence[int]
) -> Trainings:
    """Train on train with each seed and score validation; the files of test are not opened.

    Raises:
        DivergenceError: if a training diverges.
    """
    config = choice.config
    data = _load_for_validation(config, processed)
    choices = [replace(choice, seed=seed) for seed in seeds]
    trained = list(placement.run(train_for_validation, choices, data))
    return Trainings("validation", seeds, trained, data, _score_baselines(data, config))


def train_seeds_for_test(
    choice: Choice,
    processed: Processed,
    seeds: Sequence[int],
    note_scores: Callable[[dict[str, float]], None],
) -> Trainings:
    """Train on train and validation with each seed and score test.

    `note_scores` is called with the metrics of each training as soon as it has scored test.

    Raises:
        DivergenceError: if a training diverges.
    """
    config = choice.config
    n_epochs = choice.n_epochs or _find_n_epochs(choice, processed)
    data = load(processed, "test", False)
    choices = [replace(choice, seed=seed, n_epochs=n_epochs) for seed in seeds]
    trained = []
    for result in placement.run(train_for_test, choices, data):
        trained.append(result)
        note_scores(result.metrics)
    return Trainings("test", seeds, trained, data, _score_baselines(data, config))


def _find_n_epochs(choice: Choice, processed: Processed) -> int:
    """Return how many epochs to train without a study: all, or with set patience the best epoch.

    The best epoch is found once, on validation.
    """
    training = choice.config.training
    if not isinstance(training.patience, int):
        return training.max_epochs
    data = _load_for_validation(choice.config, processed)
    (trained,) = placement.run(train_for_validation, [choice], data)
    return trained.n_epochs


def _load_for_validation(config: Config, processed: Processed) -> Interactions:
    return load(processed, "validation", not config.training.resample_negatives)


def _score_baselines(data: Interactions, config: Config) -> dict[str, Any]:
    with progress("Scoring baselines"):
        return score_baselines(data, config)
