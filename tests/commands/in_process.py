"""Commands run in this process, where Ray and torch are already loaded."""

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Callable
from typing import Any, NamedTuple


class Run(NamedTuple):
    code: int
    out: str
    err: str


def run(main: Callable[[list[str]], int], *argv: object) -> Run:
    """Run a command and capture file descriptor 1 and `sys.stderr`.

    The capture of pytest does not work in fixtures of every scope.
    """
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8") as out,
        tempfile.TemporaryFile("w+", encoding="utf-8") as err,
    ):
        sys.stdout.flush()
        original = os.dup(1)
        os.dup2(out.fileno(), 1)
        try:
            with contextlib.redirect_stderr(err):
                code = main([str(argument) for argument in argv])
        finally:
            os.dup2(original, 1)
            os.close(original)
        out.seek(0)
        err.seek(0)
        return Run(code, out.read(), err.read())


def answer(main: Callable[[list[str]], int], *argv: object) -> dict[str, Any]:
    """Return the JSON object that a successful command prints."""
    code, out, err = run(main, *argv, "--json")
    assert code == 0, err
    result: dict[str, Any] = json.loads(out)
    return result
