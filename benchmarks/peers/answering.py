"""The side of a peer: an adapter runs in the peer's own environment and answers requests until its standard input ends.

A request is one line of JSON, {"measure": NAME, ...}, an answer another one, of numbers by name. The adapter's only argument is
the folder with the data; what it and its library write goes to the working directory.
"""

import csv
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

SECONDS = 2.0
"""Work is repeated until this much time is over."""

Answer = Mapping[str, float]


def answer(measurements: Mapping[str, Callable[..., Answer]]) -> None:
    """Answer each request by the measurement of its name, called with the request's other values."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what the libraries print is no answer
    for line in sys.stdin:
        request = json.loads(line)
        answers.write(json.dumps(measurements[request.pop("measure")](**request)) + "\n")
        answers.flush()


def rate(work: Callable[[], object], amount: float) -> Answer:
    """`amount` a second of calling `work` once, over whole calls."""
    calls, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < SECONDS:
        work()
        calls += 1
    return {"per_second": calls * amount / elapsed}


def read_pairs(part: str) -> tuple[list[int], list[int]]:
    """Users and items of a part of the split."""
    with data_file(part).open(newline="", encoding="utf-8") as file:
        rows = [(int(row["user_id"]), int(row["item_id"])) for row in csv.DictReader(file)]
    return [user for user, _ in rows], [item for _, item in rows]


def data_file(part: str) -> Path:
    """Where a part of the split lies."""
    return Path(sys.argv[1]) / f"{part}.csv"
