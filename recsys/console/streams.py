"""The standard streams of a command, which may be closed, or end, without ending its work.

The ground floor, below `command_line`. A service manager may start a command without them; a reader of a pipe may go.
"""

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

_GONE = (errno.EPIPE, errno.EIO, errno.EBADF)
"""Errors of a stream that nobody reads any longer."""

_results: list[TextIO] = []


def open_streams() -> None:
    """Open the standard streams that the process was started without, and drop what the others no longer take.

    Of standard error everything is dropped that cannot be written; of standard output, what nobody reads.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # Else the next file that is opened would pass for the stream.
            nowhere = os.open(os.devnull, os.O_RDWR)
            os.dup2(nowhere, descriptor)
            if nowhere != descriptor:
                os.close(nowhere)
            os.set_inheritable(descriptor, True)
    sys.stdout, sys.stderr = (
        _text_stream(1, sys.stdout),
        _text_stream(2, sys.stderr, drops_all=True),
    )


def result_stream() -> TextIO:
    """Where results go: the standard output that the command was started with."""
    return _results[-1] if _results else sys.stdout


@contextmanager
def output_apart(*, is_whole_process: bool) -> Iterator[None]:
    """Send everything written to standard output, by any library or child process, to standard error; keep the real one.

    Where the command is the whole process it stays so: Ray's threads print until the process is gone.
    """
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    if is_whole_process:
        sys.stdout = sys.stderr
    try:
        with _text_stream(os.dup(kept), None, closes=True) as stream:
            _results.append(stream)
            yield
    finally:
        _results.clear()
        sys.stdout.flush()
        if not is_whole_process:
            os.dup2(kept, 1)
        os.close(kept)


class _Dropping(io.FileIO):
    """A file that drops what it cannot write, instead of raising what says so."""

    def __init__(self, descriptor: int, *, drops_all: bool, closes: bool) -> None:
        super().__init__(descriptor, "w", closefd=closes)
        self._drops_all = drops_all

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if self._drops_all or error.errno in _GONE:
                return memoryview(data).nbytes
            raise


def _text_stream(
    descriptor: int, like: TextIO | None, *, drops_all: bool = False, closes: bool = False
) -> TextIO:
    """A stream of text by lines, in UTF-8 or as another stream has it."""
    raw = io.BufferedWriter(_Dropping(descriptor, drops_all=drops_all, closes=closes))
    encoding, errors = ("utf-8", "strict") if like is None else (like.encoding, like.errors)
    return io.TextIOWrapper(raw, encoding=encoding, errors=errors, line_buffering=True)
