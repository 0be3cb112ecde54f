"""The operations of a study's outbox: what `study_runs` appends and `sending` sends.

An operation is a JSON object with `do`, its kind, and `run`, the run that it is about: a trial's
number, or None for the study's own run. The files of earlier versions hold the same.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from recsys.tracking.outbox_file import Operation


def start(
    run: int | None, name: str, tags: Mapping[str, object], unique: Mapping[str, object]
) -> Operation:
    """Create a run; no other run below the study's has the tags `unique`."""
    return _operation("start", run, name=name, tags=_texts(tags), unique=_texts(unique), time=now())


def reopen(run: int | None) -> tuple[Operation, Operation]:
    """Reopen a run that has ended."""
    return _operation("reopen", run), set_tags(run, {"state": "running"})


def log_params(run: int, params: Mapping[str, object]) -> Operation:
    """Log parameters."""
    return _operation("params", run, params=_texts(params))


def log_metrics(run: int | None, metrics: Mapping[str, float], step: int) -> Operation:
    """Log metrics of one step."""
    values = {name: float(value) for name, value in metrics.items()}
    return _operation("metrics", run, metrics=values, step=step, time=now())


def set_tags(run: int | None, tags: Mapping[str, object]) -> Operation:
    """Set tags."""
    return _operation("tags", run, tags=dict(tags))


def log_text(run: int | None, file: str, text: str) -> Operation:
    """Log a text as an artifact."""
    return _operation("text", run, file=file, text=text)


def log_table(file: str, rows: Sequence[Mapping[str, Any]]) -> Operation:
    """Log rows as a table artifact of the study's run."""
    return _operation("table", None, file=file, rows=list(rows))


def end(run: int | None, status: str) -> Operation:
    """End a run as FINISHED, FAILED or KILLED."""
    return _operation("end", run, status=status, time=now())


def now() -> int:
    """Return the time in Unix milliseconds."""
    return int(time.time() * 1000)


def _texts(values: Mapping[str, object]) -> dict[str, str]:
    return {key: str(value) for key, value in values.items()}


def _operation(do: str, run: int | None, **values: Any) -> Operation:
    return {"do": do, "run": run, **values}
