"""A search whose driver is killed at a point: `python -m tests.faults.killed_at POINT ARGUMENT...`.

POINT is `before` or `after`, a module with a name in it, and the number of the call:
`after recsys.search.session:run 1`.
"""

import importlib
import itertools
import os
import signal
import sys
from typing import Any

from recsys.tune import main


def kill_at(when: str, place: str, times: int) -> None:
    """Replace a function or method so that its n-th call kills this process, before or after it."""
    module, _, path = place.partition(":")
    owner: Any = importlib.import_module(module)
    *parents, name = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    original, calls = getattr(owner, name), itertools.count(1)

    def dying(*arguments: Any, **named: Any) -> Any:
        is_last = next(calls) == times
        if is_last and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*arguments, **named)
        if is_last:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, dying)


if __name__ == "__main__":
    when, place, times = sys.argv[1].split()
    kill_at(when, place, int(times))
    sys.exit(main(sys.argv[2:]))
