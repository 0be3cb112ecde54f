"""Domain of one config path in a search space: its values, and how a trial samples one."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

Scalar = int | float | str | bool | None


@dataclass(frozen=True)
class Domain:
    """The values that one config path may take: `choices`, or a range from `low` to `high`.

    A range is of whole numbers if both ends are. `when` maps other parameters of the space to the
    values under which this one is sampled.
    """

    path: str
    choices: tuple[Scalar, ...] | None
    low: float | None
    high: float | None
    log: bool
    when: Mapping[str, tuple[Scalar, ...]]

    def suggest(self, trial: optuna.Trial, name: str) -> Scalar:
        """Sample a value for the trial; `name`: of the domain in Optuna."""
        if self.choices is not None:
            return trial.suggest_categorical(name, self.choices)
        assert self.low is not None
        assert self.high is not None
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(name, self.low, self.high, log=self.log)
        return trial.suggest_float(name, self.low, self.high, log=self.log)

    @property
    def distribution(self) -> BaseDistribution:
        """Optuna's distribution, which `suggest` samples."""
        if self.choices is not None:
            return CategoricalDistribution(self.choices)
        assert self.low is not None
        assert self.high is not None
        if isinstance(self.low, int) and isinstance(self.high, int):
            return IntDistribution(self.low, self.high, log=self.log)
        return FloatDistribution(self.low, self.high, log=self.log)

    def contains(self, value: object) -> bool:
        """Return whether the domain has this value; types count, so that true is not 1."""
        if self.choices is not None:
            return any(
                value == choice and isinstance(value, bool) == isinstance(choice, bool)
                for choice in self.choices
            )
        assert self.low is not None
        assert self.high is not None
        number = (int,) if isinstance(self.low, int) else (int, float)
        return (
            isinstance(value, number)
            and not isinstance(value, bool)
            and self.low <= value <= self.high
        )

    def nearest(self, value: Any) -> Scalar:
        """Return a value of the domain: `value` itself, the nearest of a range, or the first.

        None counts as the upper end of a range: for the settings of numbers it means no limit.
        """
        if self.contains(value):
            found: Scalar = value
        elif self.choices is not None:
            found = self.choices[0]
        else:
            assert self.high is not None
            is_number = isinstance(value, (int, float))
            found = self.high if value is None or (is_number and value > self.high) else self.low
        return found

    def applies(self, values: Mapping[str, Scalar]) -> bool:
        """Return whether the conditions hold; a condition on an absent parameter does not."""
        return all(
            parent in values and values[parent] in allowed for parent, allowed in self.when.items()
        )

    def tree(self) -> dict[str, Any]:
        """Return the domain as a search-space file has it."""
        if self.choices is not None:
            tree: dict[str, Any] = {"choices": list(self.choices)}
        else:
            tree = {"low": self.low, "high": self.high, "log": self.log}
        if self.when:
            tree["when"] = {parent: list(values) for parent, values in self.when.items()}
        return tree

    @property
    def edges(self) -> tuple[Scalar, ...]:
        """Values that represent all others when the domain is checked with another one."""
        return edges_of(self.choices) if self.choices is not None else (self.low, self.high)

    def edges_under(self, other: "Domain") -> tuple[Scalar, ...]:
        """Return the edges of the values under which `other` is sampled."""
        if self.path not in other.when:
            return self.edges
        return edges_of([value for value in other.when[self.path] if self.contains(value)])

    def __str__(self) -> str:
        if self.choices is not None:
            return f"one of {', '.join(map(str, self.choices))}"
        return f"from {self.low:g} to {self.high:g}"


def edges_of(values: Iterable[Scalar]) -> tuple[Scalar, ...]:
    """Return all values that are no numbers, and the smallest and the largest number.

    The config's rules across fields are bounds, which these two represent.
    """
    numbers: list[int | float] = []
    others: list[Scalar] = []
    for value in values:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            numbers.append(value)
        else:
            others.append(value)
    bounds = [min(numbers), max(numbers)] if numbers else []
    return (*others, *dict.fromkeys(bounds))
