"""Requests and answers of an adapter, which runs in the peer's own environment.

The adapter answers requests until its standard input ends. A request is one line of JSON,
{"measure": NAME, ...}; an answer is one line of JSON with numbers by name. The adapter's only
argument is the folder with the data. The adapter and its library write into the working directory.
"""

import csv
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

SECONDS = 2.0
"""Time for which work is repeated."""

Answer = Mapping[str, float]


def answer(measurements: Mapping[str, Callable[..., Answer]]) -> None:
    """Answer each request with the measurement of its name, called with its other values."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # the libraries' output goes to standard error, apart from the answers
    for line in sys.stdin:
        request = json.loads(line)
        answers.write(json.dumps(measurements[request.pop("measure")](**request)) + "\n")
        answers.flush()


def rate(work: Callable[[], object], amount: float) -> Answer:
    """Return `amount` per second, where `amount` is the work of one call, over whole calls."""
    calls, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < SECONDS:
        work()
        calls += 1
    return {"per_second": calls * amount / elapsed}


def read_pairs(split: str) -> tuple[list[int], list[int]]:
    """Return the users and items of a split."""
    with data_file(split).open(newline="", encoding="utf-8") as file:
        rows = [(int(row["user_id"]), int(row["item_id"])) for row in csv.DictReader(file)]
    return [user for user, _ in rows], [item for _, item in rows]


def data_file(split: str) -> Path:
    """Return the file of a split."""
    return Path(sys.argv[1]) / f"{split}.csv"
