"""What a command shows beside its result: notes, and how far its work is, on standard error.

The ground floor. By default a terminal has one line that changes; with -v each step has a line of its own; with -q there is
neither.
"""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_LOG = logging.getLogger("recsys")
QUIET, NORMAL, VERBOSE = logging.ERROR, logging.WARNING, logging.INFO


def set_verbosity(level: int) -> None:
    """Show as much as QUIET, NORMAL or VERBOSE asks for, of the package's log too."""
    _LOG.setLevel(level)


def is_quiet() -> bool:
    """Whether neither notes nor progress are shown."""
    return not _LOG.isEnabledFor(NORMAL)


def is_verbose() -> bool:
    """Whether each step of the work has a line."""
    return _LOG.isEnabledFor(VERBOSE)


def shows_progress() -> bool:
    """Whether anything is shown of how far the work is."""
    return is_verbose() or (not is_quiet() and sys.stderr.isatty())


def note(text: str) -> None:
    """Print a line for whoever wants to know it."""
    if not is_quiet():
        print(text, file=sys.stderr)


@contextmanager
def progress(what: str, seconds: float = 0.0) -> Iterator[Callable[[str], None]]:
    """Yield a function that shows how far some work is, such as `epoch 3 of 20`.

    Args:
        what: the work, such as `Training`.
        seconds: between two lines of -v at least; the last one is printed in any case.
    """
    if is_verbose():
        lines = _Lines(what, seconds)
        yield lines.show
        lines.end()
    elif shows_progress():
        from rich.console import Console
        from rich.text import Text

        with Console(file=sys.stderr).status(Text(what)) as status:
            yield lambda reached: status.update(Text(f"{what}: {reached}"))
    else:
        yield lambda _: None


class _Lines:
    """Lines of progress with some time between two."""

    def __init__(self, what: str, seconds: float) -> None:
        self._what = what
        self._seconds = seconds
        self._next = time.monotonic()
        self._waiting: str | None = None

    def show(self, reached: str) -> None:
        """Print a line, or keep it while the last one is too recent."""
        self._waiting = reached
        if time.monotonic() >= self._next:
            self.end()

    def end(self) -> None:
        """Print the line that was kept."""
        if self._waiting is not None:
            note(f"{self._what}: {self._waiting}")
            self._next, self._waiting = time.monotonic() + self._seconds, None
