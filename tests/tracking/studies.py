"""Studies that a test logs by hand, and the runs that MLflow has of them."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import mlflow
import pandas as pd
from mlflow.entities import Run, ViewType
from mlflow.tracking import MlflowClient

from recsys.config.schema import Config, replace_values
from recsys.tracking.connection import open_tracking
from recsys.tracking.study_runs import StudyRuns, open_study_runs

PARENT = "tags.kind = 'study'"
TRIALS = "tags.kind = 'trial'"


@dataclass
class TrackedStudy:
    """A study `s` in a folder, and its tracking store; each `open` acts as a new process."""

    uri: str
    experiment: str
    folder: Path
    attached: dict[int | None, str] = field(default_factory=dict)

    @property
    def config(self) -> Config:
        return replace_values(
            Config(), {"tracking.uri": self.uri, "tracking.experiment": self.experiment}
        )

    @property
    def outbox(self) -> Path:
        return self.folder / "s" / "mlflow-outbox.jsonl"

    def open(
        self, attach: Callable[[int | None, str], None] | None = None, *, connected: bool = True
    ) -> StudyRuns:
        (self.folder / "s").mkdir(exist_ok=True, parents=True)
        tracking = open_tracking(self.config, self.folder) if connected else None
        return open_study_runs(
            self.config,
            self.folder,
            self.folder / "s",
            tracking,
            attach or self.attached.__setitem__,
        )

    def runs(self, wanted: str = TRIALS, view: int = ViewType.ACTIVE_ONLY) -> list[Run]:
        """Return MLflow's runs by trial, deleted ones only if `view` asks for them."""
        client = MlflowClient(tracking_uri=self.uri)
        experiment = client.get_experiment_by_name(self.experiment)
        assert experiment is not None
        found = client.search_runs([experiment.experiment_id], wanted, view)
        return sorted(found, key=lambda run: int(run.data.tags.get("trial", -1)))

    def history(self, run: Run, metric: str) -> list[tuple[int, float]]:
        """Return all stored steps and values of a metric, in the order of the steps."""
        found = MlflowClient(tracking_uri=self.uri).get_metric_history(run.info.run_id, metric)
        return sorted((entry.step, entry.value) for entry in found)

    def text(self, run: Run, file: str) -> str:
        """Return a text artifact."""
        return Path(
            MlflowClient(tracking_uri=self.uri).download_artifacts(run.info.run_id, file)
        ).read_text(encoding="utf-8")

    def table(self, run: Run, file: str) -> pd.DataFrame:
        """Return a table artifact as MLflow itself reads it."""
        mlflow.set_tracking_uri(self.uri)  # load_table uses this one, not its client's
        return MlflowClient().load_table(run.info.experiment_id, file, run_ids=[run.info.run_id])


def log_trial(runs: StudyRuns, number: int, n_epochs: int, state: str | None = "complete") -> None:
    """Log a trial from its start, as a search does; a resumed search repeats some of it."""
    runs.start_trial(number, Config(), seed=7)
    for epoch in range(1, n_epochs + 1):
        runs.log_step(
            number,
            step=epoch,
            epoch=epoch,
            is_whole_epoch=True,
            metrics={"loss": 1 / epoch, "number": float(number)},
        )
    if state:
        runs.end_trial(number, state)


def log_study(runs: StudyRuns, n_trials: int = 2, n_epochs: int = 2) -> None:
    """Log a study from its start or, resumed, to its end."""
    if runs.is_new:
        runs.start({}, {"config.yaml": "a: 1\n"})
    else:
        runs.resume()
    for number in range(n_trials):
        log_trial(runs, number, n_epochs)
    runs.end(
        "complete",
        {"trial": 0, "epoch": 1, "metrics": {"loss": 1.0}},
        [{"trial": "0", "loss": 1.0}],
    )


if __name__ == "__main__":
    # A search that is killed once MLflow has answered a request, before the outbox notes it.
    import os
    import signal

    from recsys.tracking.runs import Tracking

    uri, experiment, folder, request, nth = sys.argv[1:]
    done, original = [0], getattr(Tracking, request)

    def request_and_die(*args: object) -> object:
        answer = original(*args)
        done[0] += 1
        if done[0] == int(nth):
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    setattr(Tracking, request, request_and_die)
    killed = TrackedStudy(uri, experiment, Path(folder)).open()
    log_study(killed)
    killed.flush()
