"""Costs: the time of an epoch by config, learned from the trials of the study.

The schedule plans with it. It starts from the work of an epoch (`work`), and corrects that by the
seconds that the trials have reported. All of it follows from the record, so that a resumed search
predicts as before.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self

from recsys.config.schema import Config
from recsys.data.manifest import Manifest
from recsys.search.costs.work import EpochSeconds, expected_seconds
from recsys.search.record.study_record import StudyRecord

_PRIOR_OF_ALL, _PRIOR_OF_KIND = 0.25, 1.0
"""Weights, in trials, of what is assumed before a trial has reported: that all trials are as fast
as expected, and that the trials of a kind are as fast as all trials are."""

Kind = tuple[str, str, str]
"""Variant, loss and negatives of trials, whose speeds have much in common."""


class Predictor(Protocol):
    """Source of predicted times, such as `Costs`."""

    @property
    def is_measured(self) -> bool:
        """Whether the times were corrected by a measured one."""

    def predict(self, config: Config) -> EpochSeconds:
        """Return the predicted time of an epoch of a config."""


@dataclass(frozen=True)
class LogRatios:
    """Logarithms of the ratios of the measured to the expected times of an epoch, and its kind."""

    kind: Kind
    train: float
    rank: float

    @classmethod
    def of(cls, config: Config, measured: EpochSeconds, data: Manifest) -> Self:
        """Return the ratios of a config's measured epoch."""
        expected = expected_seconds(config, data)
        train, rank = measured.train / expected.train, measured.rank / expected.rank
        return cls(_kind_of(config), math.log(train), math.log(rank))


class Costs:
    """Predictor of the time of an epoch, from the work and the trials of a study."""

    def __init__(self, record: StudyRecord, data: Manifest) -> None:
        self._record = record
        self._data = data
        self._measured: dict[int, tuple[int, LogRatios]] = {}  # with the epoch, by trial

    @property
    def is_measured(self) -> bool:
        """Whether a trial has reported an epoch."""
        self._update()
        return bool(self._measured)

    def predict(self, config: Config) -> EpochSeconds:
        """Return the predicted time of an epoch of a config."""
        self._update()
        return predict(config, [ratios for _, ratios in self._measured.values()], self._data)

    def _update(self) -> None:
        """Read the seconds of each trial's best epoch, where they are new."""
        for summary in self._record.summaries():
            number, epoch, metrics = summary.number, summary.epoch, summary.metrics
            is_known = number in self._measured and self._measured[number][0] == epoch
            if epoch is not None and "train_seconds" in metrics and not is_known:
                seconds = EpochSeconds(metrics["train_seconds"], metrics["rank_seconds"])
                config = self._record.config_of(number)
                self._measured[number] = epoch, LogRatios.of(config, seconds, self._data)


def predict(config: Config, measured: Sequence[LogRatios], data: Manifest) -> EpochSeconds:
    """Return the expected time of an epoch of a config, corrected by measured ones."""
    kind, expected = _kind_of(config), expected_seconds(config, data)
    train = expected_ratio([(of.kind, of.train) for of in measured], kind)
    rank = expected_ratio([(of.kind, of.rank) for of in measured], kind)
    return EpochSeconds(expected.train * train, expected.rank * rank, expected.rank_all * rank)


def expected_ratio(logs: Sequence[tuple[Kind, float]], kind: Kind) -> float:
    """Return the ratio of the measured to the expected time of a kind of trials.

    `logs`: the kind and the logarithm of the ratio of each trial. Means are shrunk towards
    what is known without them: the kind's towards the mean of all, and that towards 0.
    """
    of_all = sum(log for _, log in logs) / (len(logs) + _PRIOR_OF_ALL)
    of_kind = [log - of_all for of, log in logs if of == kind]
    return math.exp(of_all + sum(of_kind) / (len(of_kind) + _PRIOR_OF_KIND))


def _kind_of(config: Config) -> Kind:
    """Return the kind of a config's trials."""
    return config.model.name, config.training.loss, config.training.negative_sampling
