"""Errors that are the user's to mend: the only ones that end a command with exit code 2 and one line.

The ground floor. They are raised where input enters; every other error is a bug or a fault, and keeps its traceback.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Self


class InputError(ValueError):
    """Mistake in what the user gave: a place, the rule that it breaks, the value found there, and a remedy.

    `found` takes the place of "got VALUE" where there is no single value. `lines` are the mistakes of one place, one line each.
    """

    def __init__(
        self,
        place: object,
        rule: str,
        value: object = None,
        remedy: str = "",
        *,
        found: str | None = None,
        lines: tuple[str, ...] = (),
    ) -> None:
        super().__init__(place, rule, value, remedy)
        self.place, self.rule, self.value, self.remedy = str(place), rule, value, remedy
        self.found, self.lines = found, lines

    def __str__(self) -> str:
        if len(self.lines) > 1:
            return "\n  ".join([f"{self.place}: {self.rule}", *self.lines])
        if self.lines:
            return f"{self.place}: {self.lines[0]}" if self.place else self.lines[0]
        found = f"got {self.value}" if self.found is None else self.found
        return f"{self.place}: {self.rule}, but {found}. {self.remedy}"

    def __reduce__(self) -> tuple[Callable[..., Self], tuple[Any, ...]]:
        """Return how the error is rebuilt in another process: it comes from Ray's workers."""
        return partial(type(self), found=self.found, lines=self.lines), self.args

    @classmethod
    def listing(cls, place: str, lines: Sequence[str]) -> Self:
        """Return the error of all mistakes of one place, each `PATH: rule, but got value. remedy`."""
        return cls(place, f"{len(lines)} mistakes", lines=tuple(lines))


@contextmanager
def naming(places: Mapping[str, str]) -> Iterator[None]:
    """Give the places of an `InputError` raised within other names: a function's arguments those of a command's flags."""
    try:
        yield
    except InputError as error:
        if not isinstance(error.args[0], Path):  # a path may happen to have an argument's name
            error.place = places.get(error.place, error.place)
        raise


class DivergenceError(InputError, FloatingPointError):
    """Training whose loss or scores are no longer finite, which is its config's doing."""
