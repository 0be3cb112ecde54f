"""Messages from a trial's worker to the driver: one per step, in the result that Tune carries.

`trainable` sends them; the recorder and Tune's callbacks read them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from recsys.search.record.summaries import OnAllUsers

_KEY = "message"


@dataclass(frozen=True)
class Report:
    """Metrics of a step.

    Attributes:
        epoch: the epoch that the step completes or is within.
        step: count of segments that the trial has finished.
        is_whole_epoch: the step completes the epoch.
        metrics: metrics of the epoch up to this step, without a validation value if the epoch is
            not ranked.
        is_last: the trial has finished.
        started: Unix seconds of the first batch in this process.
        on_all_users: value of the best weights on all users, once a trial that ranked samples has
            finished.
        rank_all_seconds: time in which they were ranked.
        checkpoint: name of a file that becomes the trial's checkpoint once the record has this
            step; None if no file was written, or if it already is the checkpoint.
    """

    epoch: int
    step: int
    is_whole_epoch: bool
    metrics: Mapping[str, float]
    is_last: bool
    started: float
    on_all_users: OnAllUsers | None = None
    rank_all_seconds: float = 0.0
    checkpoint: str | None = None


@dataclass(frozen=True)
class Diverged:
    """End of a trial whose loss or scores stopped being finite."""

    reason: str


@dataclass(frozen=True)
class DiskFull:
    """End of a search: a worker could not write a file for lack of space."""

    reason: str


Message = Report | Diverged | DiskFull


def as_result(message: Message) -> dict[str, Any]:
    """Return a message in the form that Tune carries."""
    return {_KEY: message}


def message_of(result: Mapping[str, Any]) -> Message:
    """Return the message in a result of Tune's, flattened or not."""
    message: Message = result[_KEY]
    return message
