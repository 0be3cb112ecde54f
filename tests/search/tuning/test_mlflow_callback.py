import threading
from collections import Counter
from pathlib import Path
from typing import Any, cast

import pytest
from mlflow.entities import Run
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from ray.tune.experiment import Trial

from recsys.config.schema import Config
from recsys.search.record.study_record import StudyRecord
from recsys.search.tuning.messages import Diverged, Report, as_result
from recsys.search.tuning.mlflow_callback import StudyCallback
from recsys.tracking.study_runs import StudyRuns
from tests.tracking.studies import PARENT, TrackedStudy

METRICS = {"val_ndcg_at_10": 0.25, "val_recall_at_10": 0.5, "train_loss": 0.7}
WRITES = ("log_batch", "log_metric", "log_param", "set_tag", "create_run", "update_run_info")


class Record:
    """States of trials, as the record has them."""

    def __init__(self) -> None:
        self.states: dict[int, str] = {}

    def state_of(self, number: int) -> str:
        return self.states[number]


class TuneTrial:
    def __init__(self, number: int, error_file: Path | None = None) -> None:
        self.trial_id = f"tune-{number}"
        self.config = {"number": number, "seed": 7, "config": Config().model_dump_json()}
        self.error_file = error_file and str(error_file)


class Search:
    """A search of one trial, as Tune calls the callback."""

    def __init__(self, study: TrackedStudy, number: int, error_file: Path | None = None) -> None:
        self.study = study
        self.record = Record()
        self.runs: StudyRuns = study.open()
        self.runs.start({}, {})
        self.callback = StudyCallback(self.runs, cast(StudyRecord, self.record))
        self.callback.setup()
        self.trial = cast(Trial, TuneTrial(number, error_file))
        self.start()

    def start(self) -> None:
        self.callback.on_trial_start(1, [self.trial], self.trial)

    def report(
        self,
        epoch: int,
        metrics: dict[str, float] | None = None,
        *,
        step: int | None = None,
        is_whole_epoch: bool = True,
        done: bool = False,
    ) -> None:
        report = Report(epoch, step or epoch, is_whole_epoch, metrics or METRICS, done, 0.0)
        result = {**as_result(report), "pid": 1, "training_iteration": epoch, "done": done}
        self.callback.on_trial_result(1, [self.trial], self.trial, result)

    def run(self) -> Run:
        """Return the trial's run as MLflow has it now."""
        assert self.runs.flush()
        (run,) = self.study.runs()
        return run


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('tracking') / 'mlflow.db'}"


@pytest.fixture
def study(database: str, tmp_path: Path, request: pytest.FixtureRequest) -> TrackedStudy:
    return TrackedStudy(database, request.node.name, tmp_path)


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[str, bool]]:
    """Count the writes that the store does, and whether Tune's thread waited for them."""
    counts: Counter[tuple[str, bool]] = Counter()

    def counting(name: str) -> Any:
        original = getattr(SqlAlchemyStore, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            counts[name, threading.current_thread() is threading.main_thread()] += 1
            return original(*args, **kwargs)

        return call

    for name in WRITES:
        monkeypatch.setattr(SqlAlchemyStore, name, counting(name))
    return counts


def test_an_epoch_is_one_request_of_another_thread(
    study: TrackedStudy, requests: Counter[tuple[str, bool]]
) -> None:
    search = Search(study, 0)
    search.run()
    requests.clear()
    for epoch in (1, 2, 3):
        search.report(epoch)
    search.run()
    assert requests == {("log_batch", False): 3}


def test_an_epoch_is_logged_once(study: TrackedStudy) -> None:
    search = Search(study, 4)
    search.report(1)
    # The worker dies, Tune starts the trial again, and it trains its first epoch again.
    search.callback.on_trial_recover(1, [search.trial], search.trial)
    search.start()
    search.report(1, {**METRICS, "train_loss": 0.9})
    search.report(2, {**METRICS, "train_loss": 0.5})
    assert study.history(search.run(), "train_loss") == [(1, 0.7), (2, 0.5)]


def test_a_segment_of_an_epoch_has_metrics_of_its_own(study: TrackedStudy) -> None:
    search = Search(study, 4)
    search.report(1, {"train_loss": 0.9}, step=1, is_whole_epoch=False)
    search.report(1, {"train_loss": 0.7}, step=2)
    search.report(2, {"train_loss": 0.6}, step=3, is_whole_epoch=False)
    run = search.run()
    assert study.history(run, "train_loss") == [(1, 0.7)]
    assert study.history(run, "partial/train_loss") == [(1, 0.9), (3, 0.6)]


@pytest.mark.parametrize(
    ("state", "status"),
    [
        ("complete", "FINISHED"),
        ("pruned", "FINISHED"),
        ("failed", "FAILED"),
        ("diverged", "FAILED"),
        ("unfinished", "KILLED"),
    ],
)
def test_a_run_ends_as_the_record_says(study: TrackedStudy, state: str, status: str) -> None:
    search = Search(study, 2)
    assert search.run().info.status == "RUNNING"
    search.record.states[2] = state
    if state == "failed":
        search.callback.on_trial_error(1, [search.trial], search.trial)
    else:
        search.report(1, done=True)
    run = search.run()
    assert run.info.status == status
    assert (run.data.tags["state"], run.data.tags["model"], run.data.tags["dataset"]) == (
        state,
        "neumf",
        "ml-latest-small",
    )
    assert run.info.end_time >= run.info.start_time


def test_the_traceback_of_a_failed_trial_is_logged(study: TrackedStudy, tmp_path: Path) -> None:
    error_file = tmp_path / "error.txt"
    error_file.write_bytes("Failure # 1\n\x1b[36mray::T\x1b[39m \N{SNOWMAN} ".encode() + b"\xff\n")
    search = Search(study, 2, error_file)
    search.record.states[2] = "failed"
    search.callback.on_trial_error(1, [search.trial], search.trial)
    # Tune's folder is temporary.
    error_file.unlink()
    assert (
        study.text(search.run(), "traceback.txt")
        == "Failure # 1\nray::T \N{SNOWMAN} \N{REPLACEMENT CHARACTER}\n"
    )


def test_a_trial_that_failed_before_its_start_has_a_run(study: TrackedStudy) -> None:
    search = Search(study, 2)
    trial = cast(Trial, TuneTrial(3))
    search.record.states[3] = "unfinished"  # it will be retried
    search.callback.on_trial_error(1, [trial], trial)
    search.run()
    search.record.states[3] = "failed"
    search.callback.on_trial_error(1, [trial], trial)
    assert search.runs.flush()
    assert [(run.data.tags["trial"], run.info.status) for run in study.runs()] == [
        ("2", "RUNNING"),
        ("3", "FAILED"),
    ]


def test_a_diverged_epoch_logs_nothing(
    study: TrackedStudy, requests: Counter[tuple[str, bool]]
) -> None:
    search = Search(study, 3)
    search.run()
    requests.clear()
    result = as_result(Diverged("train_loss"))
    search.callback.on_trial_result(1, [search.trial], search.trial, result)
    search.run()
    assert not requests


def test_a_trial_is_nested_below_its_study(study: TrackedStudy) -> None:
    run = Search(study, 5).run()
    (parent,) = study.runs(PARENT)
    assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert run.info.run_name == "s/5"
    assert run.data.params["training.learning_rate"] == "0.001"
    assert run.data.params["seed"] == "7"
    assert not any(name.startswith(("data.", "study.", "resources.")) for name in run.data.params)


def test_the_callback_has_no_state_to_save(study: TrackedStudy) -> None:
    search = Search(study, 6)
    assert search.callback.get_state() is None
    assert [path.name for path in study.folder.rglob("*") if path.is_file()] == [
        "mlflow-outbox.jsonl"
    ]
