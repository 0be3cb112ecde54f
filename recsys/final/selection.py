"""Greedy selection of the members of an ensemble.

It sees only the validation values of ensembles; `members` computes them.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """One step of a selection: the candidate that it adds, and the ensemble's value with it."""

    candidate: int
    value: float


def select(
    n_candidates: int, n_steps: int, value_of: Callable[[Sequence[int]], float]
) -> list[Step]:
    """Return the steps that lead to the best ensemble that greedy selection finds.

    Each step adds the candidate with which the ensemble has the greatest value, even one added
    before; of equal ones the first. A step that does not help may lead to one that does, so
    all `n_steps` are tried, and those after the greatest value are dropped.

    Args:
        n_candidates: the number of candidates.
        n_steps: the maximum number of steps.
        value_of: the value of the ensemble of some candidates, each repeated by its weight.

    Source: Caruana et al. 2004, Ensemble selection from libraries of models, sec. 2.1 and 2.2.
    """
    steps: list[Step] = []
    for _ in range(n_steps):
        chosen = [step.candidate for step in steps]
        tried = [Step(added, value_of([*chosen, added])) for added in range(n_candidates)]
        steps.append(max(tried, key=lambda step: step.value))  # the first of equal ones
    best = max(range(n_steps), key=lambda place: steps[place].value)
    return steps[: best + 1]


def weights_of(chosen: Sequence[int]) -> dict[int, float]:
    """Return the weight of each chosen candidate, its share of the choices, in their order."""
    return {candidate: count / len(chosen) for candidate, count in Counter(chosen).items()}
