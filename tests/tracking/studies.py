"""Studies that are told of by hand, and what MLflow has of them."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import mlflow
import pandas as pd
from mlflow.entities import Run, ViewType
from mlflow.tracking import MlflowClient

from recsys.config.schema import Config, replace_values
from recsys.tracking.runs import open_tracking
from recsys.tracking.study_runs import StudyRuns, open_study_runs

PARENT = "tags.kind = 'study'"
TRIALS = "tags.kind = 'trial'"


@dataclass
class Told:
    """A study `s` in a folder of its own, and the store that it is logged to; each `open` is a process of its own to it."""

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
        """The runs that MLflow has, by trial; deleted ones are none unless they are asked for."""
        client = MlflowClient(tracking_uri=self.uri)
        experiment = client.get_experiment_by_name(self.experiment)
        assert experiment is not None
        found = client.search_runs([experiment.experiment_id], wanted, view)
        return sorted(found, key=lambda run: int(run.data.tags.get("trial", -1)))

    def history(self, run: Run, metric: str) -> list[tuple[int, float]]:
        """Steps and values of a metric in the order of the steps, as often as they are stored."""
        found = MlflowClient(tracking_uri=self.uri).get_metric_history(run.info.run_id, metric)
        return sorted((entry.step, entry.value) for entry in found)

    def text(self, run: Run, file: str) -> str:
        """A text artifact."""
        return Path(
            MlflowClient(tracking_uri=self.uri).download_artifacts(run.info.run_id, file)
        ).read_text(encoding="utf-8")

    def table(self, run: Run, file: str) -> pd.DataFrame:
        """A table artifact, as MLflow itself reads it."""
        mlflow.set_tracking_uri(self.uri)  # load_table goes by this whatever its client says
        return MlflowClient().load_table(run.info.experiment_id, file, run_ids=[run.info.run_id])


def tell_trial(runs: StudyRuns, number: int, n_epochs: int, state: str | None = "complete") -> None:
    """Tell of a trial as a search would, from its beginning; a resumed search tells some of it again."""
    runs.start_trial(number, Config(), seed=7)
    for epoch in range(1, n_epochs + 1):
        runs.log_step(
            number,
            step=epoch,
            epoch=epoch,
            whole=True,
            metrics={"loss": 1 / epoch, "number": float(number)},
        )
    if state:
        runs.end_trial(number, state)


def tell_all(runs: StudyRuns, n_trials: int = 2, n_epochs: int = 2) -> None:
    """Tell of a whole study, or of what is left of it."""
    if runs.is_new:
        runs.start({}, {"config.yaml": "a: 1\n"})
    else:
        runs.resume()
    for number in range(n_trials):
        tell_trial(runs, number, n_epochs)
    runs.end(
        "complete",
        {"trial": 0, "epoch": 1, "metrics": {"loss": 1.0}},
        [{"trial": "0", "loss": 1.0}],
    )


if __name__ == "__main__":
    # A search that is killed as soon as one of MLflow's requests was answered, before that can be noted.
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
    killed = Told(uri, experiment, Path(folder)).open()
    tell_all(killed)
    killed.flush()
