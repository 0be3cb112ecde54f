"""Notes and progress of a command, on standard error.

By default, a terminal shows progress in one line that changes; without a terminal, work that takes
long has a line every half minute. With -v, each step has a line of its own. With -q, there are no
notes and no progress.
"""

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_LOG = logging.getLogger("recsys")
SECONDS_PER_LINE = 30.0
"""Longest time without a line while work is in progress and no terminal shows it."""
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
    if is_quiet():
        yield lambda _: None
    elif shows_progress() and not is_verbose():
        from rich.console import Console
        from rich.text import Text

        with Console(file=sys.stderr).status(Text(what)) as status:
            yield lambda state: status.update(Text(f"{what}: {state}"))
    else:
        lines = _Lines(what, seconds)
        with _repeating(lines):
            yield lines.show if is_verbose() else lines.hold
        if is_verbose():
            lines.end()


class _Lines:
    """Lines of progress with a least time between two."""

    def __init__(self, what: str, seconds: float) -> None:
        self._what = what
        self._seconds = seconds
        self._began = self._last = self._next = time.monotonic()
        self._state: str | None = None
        self._is_pending = False

    def hold(self, state: str) -> None:
        """Hold a line back."""
        self._state, self._is_pending = state, True

    def show(self, state: str) -> None:
        """Print a line, or hold it back while the last one is too recent."""
        self.hold(state)
        if time.monotonic() >= self._next:
            self.end()

    def repeat(self) -> None:
        """Print the last state and the time of this work, if no line came for half a minute."""
        now = time.monotonic()
        if now >= self._last + SECONDS_PER_LINE:
            self._print(f" (for {now - self._began:.0f} s)")

    def end(self) -> None:
        """Print the line that was held back."""
        if self._is_pending:
            self._print()

    def _print(self, addition: str = "") -> None:
        state = "" if self._state is None else f": {self._state}"
        note(f"{self._what}{state}{addition}")
        self._last, self._is_pending = time.monotonic(), False
        self._next = self._last + self._seconds


@contextmanager
def _repeating(lines: _Lines) -> Iterator[None]:
    """Call `lines.repeat` every second, from a thread, while the work blocks this one."""
    ended = threading.Event()

    def repeat() -> None:
        while not ended.wait(1.0):
            lines.repeat()

    thread = threading.Thread(target=repeat, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
