from collections import Counter
from pathlib import Path
from typing import Any, cast

import pytest
from mlflow.entities import Metric
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.tracking import MlflowClient
from ray.tune.experiment import Trial

from recsys.config import Config
from recsys.tracking.callback import StudyCallback
from recsys.tracking.runs import Tracking, open_tracking

METRICS = {"val_ndcg_at_10": 0.25, "val_recall_at_10": 0.5, "train_loss": 0.7}
WRITES = ("log_batch", "log_metric", "log_param", "set_tag", "create_run", "update_run_info")


class Record:
    """The endings that the study would tell."""

    def __init__(self) -> None:
        self.endings: dict[int, str] = {}
        self.runs: dict[int, str] = {}

    def attach_run(self, number: int, run_id: str) -> None:
        self.runs[number] = run_id

    def ending(self, number: int) -> str:
        return self.endings[number]


class TuneTrial:
    def __init__(self, number: int) -> None:
        self.trial_id = f"tune-{number}"
        self.config = {"number": number, "seed": 7, "config": Config().model_dump_json()}


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> Tracking:
    folder = tmp_path_factory.mktemp("tracking")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        opened = open_tracking(Config(), folder)
    assert opened is not None
    return opened


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts the writes that reach the store, which does them all the same."""
    counts: Counter[str] = Counter()

    def counting(name: str) -> Any:
        original = getattr(SqlAlchemyStore, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            counts[name] += 1
            return original(*args, **kwargs)

        return call

    for name in WRITES:
        monkeypatch.setattr(SqlAlchemyStore, name, counting(name))
    return counts


def start(tracking: Tracking, record: Record, number: int) -> tuple[StudyCallback, Trial]:
    parent = tracking.start_run("s", {"kind": "study"}, {})
    callback = StudyCallback(tracking, record, "s", parent, "ml-100k")
    callback.setup()
    trial = cast(Trial, TuneTrial(number))
    callback.on_trial_start(1, [trial], trial)
    return callback, trial


def report(callback: StudyCallback, trial: Trial, epoch: int, metrics: dict[str, float] | None = None) -> None:
    result = {"epoch": epoch, "metrics": metrics or METRICS, "pid": 1, "training_iteration": epoch}
    callback.on_trial_result(1, [trial], trial, result)


def history(tracking: Tracking, run_id: str, name: str) -> list[tuple[int, float]]:
    found: list[Metric] = MlflowClient(tracking_uri=tracking.uri).get_metric_history(run_id, name)
    return [(metric.step, metric.value) for metric in found]


def test_an_epoch_is_one_request(tracking: Tracking, requests: Counter[str]) -> None:
    callback, trial = start(tracking, Record(), 0)
    requests.clear()
    for epoch in (1, 2, 3):
        report(callback, trial, epoch)
    assert requests == {"log_batch": 3}


def test_an_epoch_is_logged_once(tracking: Tracking) -> None:
    record = Record()
    callback, trial = start(tracking, record, 4)
    report(callback, trial, 1)
    # The worker dies, Tune starts the trial again, and it goes through its first epoch a second time.
    callback.on_trial_recover(1, [trial], trial)
    callback.on_trial_start(1, [trial], trial)
    report(callback, trial, 1, {**METRICS, "train_loss": 0.9})
    report(callback, trial, 2, {**METRICS, "train_loss": 0.5})
    assert len(record.runs) == 1
    assert history(tracking, record.runs[4], "train_loss") == [(1, 0.7), (2, 0.5)]


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
def test_a_run_ends_as_the_record_says(tracking: Tracking, state: str, status: str) -> None:
    record = Record()
    callback, trial = start(tracking, record, 2)
    run_id = record.runs[2]
    client = MlflowClient(tracking_uri=tracking.uri)
    assert client.get_run(run_id).info.status == "RUNNING"
    record.endings[2] = state
    if state == "failed":
        callback.on_trial_error(1, [trial], trial)
    else:
        callback.on_trial_complete(1, [trial], trial)
    run = client.get_run(run_id)
    assert run.info.status == status
    assert (run.data.tags["state"], run.data.tags["model"], run.data.tags["dataset"]) == (state, "neumf", "ml-100k")
    assert run.info.end_time >= run.info.start_time


def test_a_diverged_epoch_has_nothing_to_log(tracking: Tracking, requests: Counter[str]) -> None:
    callback, trial = start(tracking, Record(), 3)
    requests.clear()
    callback.on_trial_result(1, [trial], trial, {"diverged": "train_loss", "done": True})
    assert not requests


def test_a_child_lies_under_its_parent(tracking: Tracking) -> None:
    record = Record()
    callback, _ = start(tracking, record, 5)
    run = MlflowClient(tracking_uri=tracking.uri).get_run(record.runs[5])
    parent = MlflowClient(tracking_uri=tracking.uri).get_run(callback._parent)
    assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert run.info.run_name == "s/5"
    assert run.data.params["training.learning_rate"] == "0.001"
    assert run.data.params["seed"] == "7"
    assert not any(name.startswith(("data.", "study.", "resources.")) for name in run.data.params)


def test_nothing_is_snapshot(tmp_path: Path, tracking: Tracking) -> None:
    callback, _ = start(tracking, Record(), 6)
    assert callback.get_state() is None
    assert not list(tmp_path.iterdir())
