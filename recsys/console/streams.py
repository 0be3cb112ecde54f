"""Standard streams of a command, which may be closed without ending its work.

A service manager may start a command without streams, and the reader of a pipe may exit.
"""

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

_GONE = (errno.EPIPE, errno.EIO, errno.EBADF)
"""Errors of a stream that has no reader any more."""

_results: list[TextIO] = []


def open_streams() -> None:
    """Open the standard streams that the process was started without, and tolerate closed ones.

    Standard error drops everything that cannot be written; standard output drops its text only when
    it has no reader.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # Otherwise the next file to be opened would get the stream's descriptor.
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, descriptor)
            if null != descriptor:
                os.close(null)
            os.set_inheritable(descriptor, True)
    sys.stdout, sys.stderr = (
        _text_stream(1, sys.stdout),
        _text_stream(2, sys.stderr, drops_all=True),
    )


def result_stream() -> TextIO:
    """Return the standard output that the command was started with, which takes its result."""
    return _results[-1] if _results else sys.stdout


@contextmanager
def output_apart(*, is_whole_process: bool) -> Iterator[None]:
    """Redirect standard output, also of libraries and child processes, to standard error.

    `result_stream` keeps the original. If the command is the whole process, the redirection stays:
    Ray's threads print until the process exits.
    """
    sys.stdout.flush()
    original = os.dup(1)
    os.dup2(2, 1)
    if is_whole_process:
        sys.stdout = sys.stderr
    try:
        with _text_stream(os.dup(original), None, closes=True) as stream:
            _results.append(stream)
            yield
    finally:
        _results.clear()
        sys.stdout.flush()
        if not is_whole_process:
            os.dup2(original, 1)
        os.close(original)


class _Dropping(io.FileIO):
    """File that drops what it cannot write, instead of raising an error."""

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
    """Return a stream of lines, in UTF-8 or in the encoding of the stream `like`."""
    raw = io.BufferedWriter(_Dropping(descriptor, drops_all=drops_all, closes=closes))
    encoding, errors = ("utf-8", "strict") if like is None else (like.encoding, like.errors)
    return io.TextIOWrapper(raw, encoding=encoding, errors=errors, line_buffering=True)
