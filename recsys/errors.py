"""Errors of the user: the only ones that end a command with exit code 2 and one line.

They are raised where input enters. Every other error is a bug or a fault, and
ends a command with a traceback.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Self


class Argument(str):
    """Name of a function's argument, as the place of an `InputError`.

    A type of its own, since a file of the user may have the same name.
    """

    __slots__ = ()


class InputError(ValueError):
    """Mistake of the user, printed as `PLACE: rule, but got VALUE. remedy`.

    `place`: a config path, a file, an environment variable, or an `Argument`, which a command
    replaces by its flag. `rule`: the rule that is broken, such as "must be at least
    1". `found`: replaces "got VALUE" if there is no single value. `lines`: several mistakes of one
    place, one line each.
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
        """Return the constructor and its arguments, by which Ray copies it to another process."""
        return partial(type(self), found=self.found, lines=self.lines), self.args

    @classmethod
    def listing(cls, place: str, lines: Sequence[str]) -> Self:
        """Return the error of all mistakes of one place, each as a line of this format."""
        return cls(place, f"{len(lines)} mistakes", lines=tuple(lines))


@contextmanager
def naming(places: Mapping[str, str]) -> Iterator[None]:
    """Replace an argument or a config path, as the place of an `InputError` raised within."""
    try:
        yield
    except InputError as error:
        place, *rest = error.args
        # Files may be named like an argument, but hardly like a config path.
        if place in places and (isinstance(place, Argument) or "." in place):
            error.args = (places[place], *rest)
            error.place = places[place]
        raise


class DivergenceError(InputError, FloatingPointError):
    """Training whose loss or scores are no longer finite, because of its config."""
