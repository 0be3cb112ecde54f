"""What a study tells of its trials, and how trials are ranked.

Stands between the record and all who read it: progress, the leaderboard, MLflow and final training.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any

STATES = ("complete", "pruned", "failed", "diverged", "unfinished")
_CHOOSABLE = ("complete", "pruned", "unfinished")


@dataclass(frozen=True)
class TrialSummary:
    """One trial as the record has it.

    `value`: the best validation value, reached at `epoch` (1-based). `nodes`: the nodes' addresses by the first epoch (as text)
    that ran there; a trial that never moved has one.
    """

    number: int
    state: str
    epochs: int
    value: float | None
    epoch: int | None
    params: dict[str, Any]
    metrics: dict[str, float]
    run_id: str | None
    nodes: dict[str, str]

    @property
    def choosable(self) -> bool:
        """Whether it may be chosen as the best: it reported a value and neither failed nor diverged."""
        return self.state in _CHOOSABLE and self.value is not None


def ranked(summaries: list[TrialSummary]) -> list[TrialSummary]:
    """Trials from the best value to the worst, of equals the earlier one first; those that may not be chosen at the end."""
    return sorted(summaries, key=lambda s: (not s.choosable, -(s.value or 0.0), s.number))


def best_trial(summaries: list[TrialSummary]) -> TrialSummary | None:
    """The first of the ranked trials, None if none may be chosen."""
    return next((s for s in ranked(summaries) if s.choosable), None)


def count_states(summaries: list[TrialSummary]) -> dict[str, int]:
    """How many trials ended in each state."""
    found = Counter(summary.state for summary in summaries)
    return {state: found[state] for state in STATES}
