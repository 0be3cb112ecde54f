"""A search whose driver is killed by the system at a chosen point: `python -m tests.faults.killed_at POINT ARGUMENT...`.

POINT is `before` or `after`, a module, a name in it and how often it is called until then: `after recsys.search.session:run 1`.
"""

import importlib
import itertools
import os
import signal
import sys
from typing import Any

from recsys.tune import main


def kill_at(when: str, place: str, times: int) -> None:
    """Put in the place of a function or method one that kills this process before or after it is called for the n-th time."""
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
