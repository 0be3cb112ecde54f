"""Notes and progress of a command, on standard error.

By default, a terminal shows progress in one line that changes. With -v, each step has a line of its
own. With -q, there are no notes and no progress.
"""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_LOG = logging.getLogger("recsys")
QUIET, NORMAL, VERBOSE = logging.ERROR, logging.WARNING, logging.INFO


def set_verbosity(level: int) -> None:
    """Set the verbosity of notes, of progress and of the package's log."""
    _LOG.setLevel(level)


def is_quiet() -> bool:
    """Return whether notes and progress are off."""
    return not _LOG.isEnabledFor(NORMAL)


def is_verbose() -> bool:
    """Return whether each step of the work has a line."""
    return _LOG.isEnabledFor(VERBOSE)


def shows_progress() -> bool:
    """Return whether progress is shown."""
    return is_verbose() or (not is_quiet() and sys.stderr.isatty())


def note(text: str) -> None:
    """Print a line, unless the command is quiet."""
    if not is_quiet():
        print(text, file=sys.stderr)


@contextmanager
def progress(what: str, seconds: float = 0.0) -> Iterator[Callable[[str], None]]:
    """Yield a function that shows the progress of some work, such as `epoch 3 of 20`.

    Args:
        what: the work, such as `Training`.
        seconds: least time between two lines of -v. The last line is always printed.
    """
    if is_verbose():
        lines = _Lines(what, seconds)
        yield lines.show
        lines.end()
    elif shows_progress():
        from rich.console import Console
        from rich.text import Text

        with Console(file=sys.stderr).status(Text(what)) as status:
            yield lambda state: status.update(Text(f"{what}: {state}"))
    else:
        yield lambda _: None


class _Lines:
    """Lines of progress with a least time between two."""

    def __init__(self, what: str, seconds: float) -> None:
        self._what = what
        self._seconds = seconds
        self._next = time.monotonic()
        self._pending: str | None = None

    def show(self, state: str) -> None:
        """Print a line, or hold it back while the last one is too recent."""
        self._pending = state
        if time.monotonic() >= self._next:
            self.end()

    def end(self) -> None:
        """Print the line that was held back."""
        if self._pending is not None:
            note(f"{self._what}: {self._pending}")
            self._next, self._pending = time.monotonic() + self._seconds, None
