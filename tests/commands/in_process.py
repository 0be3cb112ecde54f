"""The commands in this process, where Ray and torch are loaded already, with their streams as a shell would see them."""

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
    """Run a command; file descriptor 1 and `sys.stderr` are caught, unlike with pytest's own means in fixtures of all scopes."""
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8") as out,
        tempfile.TemporaryFile("w+", encoding="utf-8") as err,
    ):
        sys.stdout.flush()
        kept = os.dup(1)
        os.dup2(out.fileno(), 1)
        try:
            with contextlib.redirect_stderr(err):
                code = main([str(argument) for argument in argv])
        finally:
            os.dup2(kept, 1)
            os.close(kept)
        out.seek(0)
        err.seek(0)
        return Run(code, out.read(), err.read())


def answer(main: Callable[[list[str]], int], *argv: object) -> dict[str, Any]:
    """The JSON object that a command prints when all is well."""
    code, out, err = run(main, *argv, "--json")
    assert code == 0, err
    told: dict[str, Any] = json.loads(out)
    return told
