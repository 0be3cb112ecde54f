"""The runs of one study in MLflow, as the search tells of them: its own run, and one nested below it a trial.

Stands between the search, its callback of Tune included, and the outbox. What is told twice is logged once, also by a search that
another process began: what its outbox holds, sent or not, has been told.
"""

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from recsys.config.schema import Config
from recsys.storage.s3 import url_of
from recsys.tracking.outbox import Outbox
from recsys.tracking.outbox_file import Operation, read_outbox
from recsys.tracking.places import tracking_uri
from recsys.tracking.runs import Tracking, connect, trial_params
from recsys.tracking.sending import RunSender

OUTBOX = "mlflow-outbox.jsonl"
STATUSES = {
    "complete": "FINISHED",
    "pruned": "FINISHED",
    "failed": "FAILED",
    "diverged": "FAILED",
    "unfinished": "KILLED",
}


@dataclass
class _Told:
    """What was told of a trial. `status`: as what its run ended in MLflow, None where it goes on."""

    last_step: int = 0
    status: str | None = None


class StudyRuns:
    """Tells MLflow of a study; nothing here waits for a request but `flush` and `close`."""

    def __init__(
        self, outbox: Outbox, sender: RunSender, study: str, told: Sequence[Operation]
    ) -> None:
        """Begin or go on.

        Args:
            outbox: where everything is put in.
            sender: what the outbox sends with.
            study: the study's name.
            told: what was put into the outbox before, by earlier processes.
        """
        self._outbox = outbox
        self._sender = sender
        self._study = study
        self._trials: dict[int, _Told] = {}
        self._best: tuple[int, dict[str, float]] | None = None
        self.is_new = not told
        """Whether nothing was told of the study before."""
        for operation in told:
            self._note(operation)

    @property
    def run_id(self) -> str | None:
        """The study's own run in MLflow, None until it is made."""
        return self._sender.study_run_id

    @property
    def away(self) -> ConnectionError | None:
        """Why MLflow did not answer when it was last tried, None where it did."""
        return self._outbox.away

    def has_ended(self, number: int, state: str) -> bool:
        """Whether it was told that a trial ended in this state."""
        return self._trials.get(number, _Told()).status == STATUSES[state]

    def last_step(self, number: int) -> int:
        """The last step that was told of a trial, 0 if none was."""
        return self._trials.get(number, _Told()).last_step

    def start(self, tags: Mapping[str, object], texts: Mapping[str, str]) -> None:
        """Begin the study's own run with its tags, and its texts as artifacts by name."""
        tags = {"kind": "study", "study": self._study, "state": "running", **tags}
        self._put(
            _start(None, self._study, tags, {"study_id": uuid.uuid4().hex}),
            *(_operation("text", None, file=name, text=text) for name, text in texts.items()),
        )

    def resume(self) -> None:
        """Let the study's own run go on."""
        self._put(*_go_on(None))

    def end(
        self, state: str, best: Mapping[str, Any] | None, rows: Sequence[Mapping[str, Any]]
    ) -> None:
        """End the study's own run.

        Args:
            state: `complete`, or `interrupted`.
            best: `trial`, `epoch` and `metrics` of the best trial.
            rows: the leaderboard.
        """
        if rows:
            self._put(_operation("table", None, file="leaderboard.json", rows=list(rows)))
        if best:
            self._put(_operation("tags", None, tags={"best_trial": best["trial"]}))
        if best and self._best != (best["epoch"], best["metrics"]):
            self._put(_metrics(None, best["metrics"], best["epoch"]))
        self._put(
            _operation("tags", None, tags={"state": state}),
            _operation(
                "end", None, status="KILLED" if state == "interrupted" else "FINISHED", time=_now()
            ),
        )

    def start_trial(self, number: int, config: Config, seed: int) -> None:
        """Begin a trial's run, or let it go on if an earlier process ended it."""
        if number not in self._trials:
            tags = {
                "study": self._study,
                "state": "running",
                "model": config.model.name,
                "dataset": config.data.source,
            }
            params = {
                name: str(value) for name, value in {**trial_params(config), "seed": seed}.items()
            }
            self._put(
                _start(number, f"{self._study}/{number}", tags, {"kind": "trial", "trial": number}),
                _operation("params", number, params=params),
            )
        elif self._trials[number].status is not None:
            self._put(*_go_on(number))

    def log_step(
        self, number: int, step: int, epoch: int, whole: bool, metrics: Mapping[str, float]
    ) -> None:
        """Log a step of a trial, once: an epoch by its own number, a part of one as `partial/...` by the number of the step."""
        if step > self._trials[number].last_step:
            named = (
                metrics if whole else {f"partial/{name}": value for name, value in metrics.items()}
            )
            self._put({**_metrics(number, named, epoch if whole else step), "reached": step})

    def end_trial(self, number: int, state: str, error: str | None = None) -> None:
        """End a trial's run as the record of the study says, with the traceback of a failure; once, and if it was begun."""
        told = self._trials.get(number)
        if told is None or told.status is not None:
            return
        if error is not None:
            self._put(_operation("text", number, file="traceback.txt", text=error))
        self._put(
            _operation("tags", number, tags={"state": state}),
            _operation("end", number, status=STATUSES[state], time=_now()),
        )

    @property
    def n_kept(self) -> int:
        """Operations that were told."""
        return self._outbox.n_kept

    def release(self, n: int) -> None:
        """Let the first `n` operations be sent, where the study lies in S3: they are there."""
        self._outbox.release(n)

    def flush(self, limit: float | None = None) -> bool:
        """Wait until all is sent, as long as MLflow answers, and at most `limit` seconds. Returns whether all is sent.

        Raises:
            RuntimeError: if sending came to an end by a fault.
        """
        return self._outbox.flush(limit)

    def close(self, limit: float | None = None) -> None:
        """Flush, and tell what is left and kept.

        Raises:
            RuntimeError: if sending came to an end by a fault.
        """
        self._outbox.close(limit)

    def _put(self, *operations: Operation) -> None:
        self._outbox.append(*operations)
        for operation in operations:
            self._note(operation)

    def _note(self, operation: Operation) -> None:
        if (number := operation["run"]) is None:
            if operation["do"] == "metrics":
                self._best = operation["step"], operation["metrics"]
            return
        told = self._trials.setdefault(number, _Told())
        told.last_step = operation.get("reached", told.last_step)
        if operation["do"] in ("end", "reopen"):
            told.status = operation.get("status")


def open_study_runs(
    config: Config,
    folder: Path,
    study_folder: Path,
    tracking: Tracking | None,
    attach: Callable[[int | None, str], None],
) -> StudyRuns:
    """The runs of the study in `study_folder`, which is begun or goes on; what its outbox still holds is sent.

    Args:
        config: says where MLflow is.
        folder: the command's `--dir`.
        study_folder: where the study lies; its name is the study's.
        tracking: the connection, or None to try again until there is one.
        attach: called with each run that is made, from another thread: the trial's number, None for the study's own, and the id.

    Raises:
        InputError: if the outbox of the study is damaged.
    """
    path = study_folder / OUTBOX
    kept = read_outbox(path)
    run_ids = {
        entry.operation["run"]: entry.note["run_id"]
        for entry in kept
        if entry.note and "run_id" in entry.note
    }
    sender = RunSender(partial(connect, config, folder), tracking, run_ids, attach)
    outbox = Outbox(
        path,
        kept,
        sender.send,
        tracking_uri(config, folder) or "no place",
        held=url_of(study_folder) is not None,
    )
    return StudyRuns(outbox, sender, study_folder.name, [entry.operation for entry in kept])


def _operation(do: str, run: int | None, **values: Any) -> Operation:
    return {"do": do, "run": run, **values}


def _start(
    run: int | None, name: str, tags: Mapping[str, object], unique: Mapping[str, object]
) -> Operation:
    """`unique`: the tags that, below the study's run, no other run has."""
    told = {key: str(value) for key, value in tags.items()}
    return _operation(
        "start",
        run,
        name=name,
        tags=told,
        unique={key: str(value) for key, value in unique.items()},
        time=_now(),
    )


def _metrics(run: int | None, metrics: Mapping[str, float], step: int) -> Operation:
    return _operation(
        "metrics",
        run,
        metrics={name: float(value) for name, value in metrics.items()},
        step=step,
        time=_now(),
    )


def _go_on(run: int | None) -> tuple[Operation, ...]:
    return _operation("reopen", run), _operation("tags", run, tags={"state": "running"})


def _now() -> int:
    return int(time.time() * 1000)
