import json
import logging
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

import mlflow.cli
import pytest
from click.testing import CliRunner
from mlflow.entities import ViewType
from mlflow.tracking import MlflowClient

from recsys.config.schema import Config
from recsys.tracking import outbox
from recsys.tracking.runs import Tracking
from tests.tracking.faulty import FaultyServer
from tests.tracking.studies import PARENT, TrackedStudy, log_study, log_trial

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"


@pytest.fixture
def study_at(tmp_path: Path) -> Callable[[str], TrackedStudy]:
    return lambda uri: TrackedStudy(uri, f"e-{uuid.uuid4().hex}", tmp_path)


@pytest.fixture(params=["database", "mlflow_server"])
def study(request: pytest.FixtureRequest, study_at: Callable[[str], TrackedStudy]) -> TrackedStudy:
    """A study logged to a database, and one logged to a server."""
    return study_at(request.getfixturevalue(request.param))


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.startswith("recsys")]


def check_all(study: TrackedStudy, n_trials: int = 2, n_epochs: int = 2) -> None:
    """Check that MLflow has all that `log_study` logged, once."""
    (parent,) = study.runs(PARENT)
    assert (parent.info.status, parent.data.tags["state"]) == ("FINISHED", "complete")
    assert study.history(parent, "loss") == [(1, 1.0)]
    client = MlflowClient(tracking_uri=study.uri)
    assert {file.path for file in client.list_artifacts(parent.info.run_id)} == {
        "config.yaml",
        "leaderboard.json",
    }
    trials = study.runs()
    assert [run.data.tags["trial"] for run in trials] == [str(number) for number in range(n_trials)]
    for number, run in enumerate(trials):
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert (run.info.status, run.data.tags["state"]) == ("FINISHED", "complete")
        assert run.data.params["seed"] == "7"
        assert study.history(run, "loss") == [
            (epoch, 1 / epoch) for epoch in range(1, n_epochs + 1)
        ]
        assert study.attached.get(number) in (None, run.info.run_id)


def test_a_study_is_logged(study: TrackedStudy) -> None:
    runs = study.open()
    runs.start({"dataset": "ml-100k"}, {"config.yaml": "a: 1\n", "space.yaml": "b: 2\n"})
    assert runs.flush()
    (parent,) = study.runs(PARENT)
    assert runs.run_id == parent.info.run_id
    assert parent.info.status == "RUNNING"
    tags = parent.data.tags
    assert (tags["state"], tags["study"], tags["dataset"], parent.info.run_name) == (
        "running",
        "s",
        "ml-100k",
        "s",
    )
    log_trial(runs, 3, 2, state=None)
    runs.end_trial(3, "failed", "Traceback: boom\n")
    rows: list[dict[str, object]] = [
        {"trial": "3", "value": 0.5, "mlflow_run_id": None},
        {"trial": "4", "value": None, "mlflow_run_id": "x"},
    ]
    runs.end("interrupted", {"trial": 3, "epoch": 2, "metrics": {"loss": 0.5}}, rows)
    runs.close()
    parent, (trial,) = study.runs(PARENT)[0], study.runs()
    assert study.attached == {None: parent.info.run_id, 3: trial.info.run_id}
    assert (parent.info.status, parent.data.tags["state"], parent.data.tags["best_trial"]) == (
        "KILLED",
        "interrupted",
        "3",
    )
    assert study.history(parent, "loss") == [(2, 0.5)]
    assert (trial.info.status, trial.data.tags["state"], trial.info.run_name) == (
        "FAILED",
        "failed",
        "s/3",
    )
    assert trial.data.params["model.name"] == "neumf"
    assert trial.info.start_time <= trial.info.end_time <= parent.info.end_time
    assert study.text(trial, "traceback.txt") == "Traceback: boom\n"
    client = MlflowClient(tracking_uri=study.uri)
    assert {file.path for file in client.list_artifacts(parent.info.run_id)} == {
        "config.yaml",
        "space.yaml",
        "leaderboard.json",
    }
    table = study.table(parent, "leaderboard.json")
    assert table["value"].tolist()[0] == 0.5
    assert table["trial"].astype(str).tolist() == ["3", "4"]


def test_values_logged_twice_are_stored_once(study: TrackedStudy) -> None:
    runs = study.open()
    runs.start({}, {})
    log_trial(runs, 0, 1)
    runs.close()
    (run,) = study.runs()
    tracking = Tracking(study.uri, study.experiment, None)
    for _ in range(2):
        tracking.log_params(run.info.run_id, {"seed": 7})
        tracking.log_metrics(run.info.run_id, {"again": 0.25}, step=3, now=1_700_000_000_000)
        tracking.log_table(run.info.run_id, [{"a": 1}], "table.json")
    assert study.history(run, "again") == [(3, 0.25)]
    assert study.table(run, "table.json")["a"].tolist() == [1]


def test_segments_of_an_epoch(study: TrackedStudy) -> None:
    runs = study.open()
    runs.start({}, {})
    runs.start_trial(0, Config(), seed=1)
    # Two segments an epoch; the worker dies in the second epoch and reports segment 2 again.
    for step, epoch, is_whole in [
        (1, 1, False),
        (2, 1, True),
        (3, 2, False),
        (2, 1, True),
        (3, 2, False),
        (4, 2, True),
    ]:
        runs.log_step(0, step, epoch, is_whole, {"loss": 1 / step})
    assert runs.last_step(0) == 4
    assert runs.last_step(1) == 0
    runs.close()
    (run,) = study.runs()
    assert study.history(run, "loss") == [(1, 1 / 2), (2, 1 / 4)]
    assert study.history(run, "partial/loss") == [(1, 1.0), (3, 1 / 3)]


def test_a_study_is_resumed_in_another_process(study: TrackedStudy) -> None:
    first = study.open()
    first.start({}, {"config.yaml": "a: 1\n"})
    log_trial(first, 0, 2)
    log_trial(first, 1, 2, "unfinished")
    log_trial(first, 2, 1, state=None)
    first.end("interrupted", None, [])
    first.close()
    second = study.open()
    assert not second.is_new
    assert second.run_id == first.run_id
    assert [second.has_ended(n, "complete") for n in (0, 1, 2, 3)] == [True, False, False, False]
    assert [second.last_step(n) for n in (0, 1, 2, 3)] == [2, 2, 1, 0]
    second.resume()
    second.start_trial(1, Config(), seed=7)
    assert not second.has_ended(1, "unfinished")
    assert second.flush()
    assert [run.info.status for run in study.runs()] == ["FINISHED", "RUNNING", "RUNNING"]
    assert study.runs(PARENT)[0].info.status == "RUNNING"
    log_trial(second, 1, 3)
    log_trial(second, 2, 3)
    # A run that has ended keeps its state.
    second.end_trial(0, "failed")
    second.end(
        "complete",
        {"trial": 0, "epoch": 1, "metrics": {"loss": 1.0}},
        [{"trial": "0", "loss": 1.0}],
    )
    second.close()
    trials = study.runs()
    assert [(run.info.status, run.data.tags["state"]) for run in trials] == [
        ("FINISHED", "complete")
    ] * 3
    for run, n_epochs in zip(trials, (2, 3, 3), strict=True):
        assert study.history(run, "loss") == [
            (epoch, 1 / epoch) for epoch in range(1, n_epochs + 1)
        ]
    assert (study.runs(PARENT)[0].info.status, len(study.runs(PARENT))) == ("FINISHED", 1)


@pytest.mark.parametrize(
    ("store", "request_name", "nth"),
    [
        *(
            ("database", "create_run", 1),
            ("database", "create_run", 3),
            ("database", "log_params", 1),
        ),
        *(("database", "log_metrics", 4), ("database", "log_text", 1), ("database", "end_run", 3)),
        *(("mlflow_server", "create_run", 2), ("mlflow_server", "log_metrics", 2)),
    ],
)
def test_a_search_that_is_killed(
    request: pytest.FixtureRequest,
    study_at: Callable[[str], TrackedStudy],
    store: str,
    request_name: str,
    nth: int,
) -> None:
    study = study_at(request.getfixturevalue(store))
    command = [
        sys.executable,
        "-m",
        "tests.tracking.studies",
        study.uri,
        study.experiment,
        str(study.folder),
        request_name,
        str(nth),
    ]
    killed = subprocess.run(command, cwd=ROOT, timeout=120, check=False)
    assert killed.returncode == -signal.SIGKILL
    resumed = study.open()
    log_study(resumed)
    resumed.close()
    check_all(study)
    assert study.runs("", ViewType.DELETED_ONLY) == []
    ended = len(study.outbox.read_text().splitlines())
    # A third start has nothing to send.
    assert study.open().flush()
    assert len(study.outbox.read_text().splitlines()) == ended


@pytest.mark.parametrize("fault", ["error", "hang", "drop", "lose"])
def test_a_server_that_is_down_for_a_while(
    fault: str,
    faulty: FaultyServer,
    study_at: Callable[[str], TrackedStudy],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(outbox, "PATIENCE_SECONDS", 3.0)
    study = study_at(faulty.uri)
    with caplog.at_level(logging.WARNING):
        runs = study.open()
        runs.start({}, {"config.yaml": "a: 1\n"})
        log_trial(runs, 0, 1, state=None)
        assert runs.flush()
        faulty.fault = fault
        # The search does not wait; no request arrives, except where only the answers are lost.
        log_trial(runs, 0, 2)
        log_trial(runs, 1, 2)
        assert not runs.flush()
        faulty.fault = None
        runs.end(
            "complete",
            {"trial": 0, "epoch": 1, "metrics": {"loss": 1.0}},
            [{"trial": "0", "loss": 1.0}],
        )
        runs.close()
    (warned,) = warnings_of(caplog)
    assert warned.startswith(f"MLflow at {faulty.uri} does not answer (")
    assert warned.endswith(
        f"): the search continues, and {study.outbox} keeps the unsent operations."
    )
    # The libraries' own warnings, one a request, are silenced.
    assert len(caplog.records) == 1
    check_all(study)


def test_a_server_that_starts_late(
    faulty: FaultyServer, study_at: Callable[[str], TrackedStudy], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "_FIRST_DELAY", 0.05)
    port = int(faulty.uri.rpartition(":")[2])
    faulty.close()
    study = study_at(faulty.uri)
    runs = study.open(connected=False)
    log_study(runs)
    assert not runs.flush()
    assert runs.run_id is None
    late = FaultyServer(faulty.behind, port)
    try:
        runs.close()
        check_all(study)
    finally:
        late.close()


def test_a_lost_answer_makes_no_second_run(
    faulty: FaultyServer, study_at: Callable[[str], TrackedStudy]
) -> None:
    study = study_at(faulty.uri)
    runs = study.open()
    runs.start({}, {"config.yaml": "a: 1\n"})
    assert runs.flush()
    # MLflow's client retries a request by itself: one call creates two runs.
    faulty.fault, faulty.only = "lose", "runs/create"
    log_trial(runs, 0, 2, state=None)
    runs.close()
    assert faulty.count("runs/create") == 1 + 2
    (run,) = study.runs()
    assert study.attached == {None: runs.run_id, 0: run.info.run_id}
    assert study.history(run, "loss") == [(1, 1.0), (2, 0.5)]


def test_values_that_mlflow_refuses_are_left_out(
    study: TrackedStudy, caplog: pytest.LogCaptureFixture
) -> None:
    runs = study.open()
    runs.start({}, {"config.yaml": "a: 1\n"})
    runs.start_trial(0, Config(), seed=7)
    with caplog.at_level(logging.WARNING, "recsys"):
        runs.log_step(0, 1, 1, True, {"ndcg@10": 1.0})
        runs.log_step(0, 2, 2, True, {"loss": 0.5})
        assert runs.flush()
        (warned,) = warnings_of(caplog)
        assert warned.startswith("MLflow refused metrics of the run of trial 0 (")
        assert "ndcg@10" in warned
        (trial,) = study.runs()
        assert study.history(trial, "loss") == [(2, 0.5)]
        runs.close()
    # The outbox notes it as refused and does not send it again.
    (refused,) = [
        line for line in map(json.loads, study.outbox.read_text().splitlines()) if "refused" in line
    ]
    assert "ndcg@10" in refused["refused"]
    assert study.open().flush()
    assert len(warnings_of(caplog)) == 1


def test_runs_that_are_deleted_during_a_search(
    study: TrackedStudy, caplog: pytest.LogCaptureFixture
) -> None:
    client = MlflowClient(tracking_uri=study.uri)
    runs = study.open()
    runs.start({}, {"config.yaml": "a: 1\n"})
    log_trial(runs, 0, 1, state=None)
    assert runs.flush()
    (study_run,), (trial,) = study.runs(PARENT), study.runs()
    with caplog.at_level(logging.WARNING, "recsys"):
        client.delete_run(trial.info.run_id)
        log_trial(runs, 0, 2)
        assert runs.flush()
        assert warnings_of(caplog) == ["In MLflow the run of trial 0 was deleted: it is restored."]
        client.delete_run(study_run.info.run_id)
        runs.start_trial(1, Config(), seed=7)
        assert runs.flush()
        # It is restored at once: MLflow hides the runs below a deleted run.
        assert [run.info.run_id for run in study.runs(PARENT)] == [study_run.info.run_id]
        client.delete_experiment(study_run.info.experiment_id)
        log_trial(runs, 1, 2)
        runs.end(
            "complete",
            {"trial": 0, "epoch": 1, "metrics": {"loss": 1.0}},
            [{"trial": "0", "loss": 1.0}],
        )
        runs.close()
    assert warnings_of(caplog)[1:] == [
        "In MLflow the study's run was deleted: it is restored.",
        f"MLflow's experiment {study.experiment} was deleted: it is restored with its runs.",
    ]
    check_all(study)


def delete(study: TrackedStudy, what: str) -> None:
    """Delete the study's run, all runs, the unfinished trial's, or the experiment."""
    client = MlflowClient(tracking_uri=study.uri)
    (study_run,), trials = study.runs(PARENT), study.runs()
    if what == "experiment":
        client.delete_experiment(study_run.info.experiment_id)
    for run in {
        "study": [study_run],
        "all": study.runs(""),
        "trial": [trials[1]],
        "experiment": [],
    }[what]:
        client.delete_run(run.info.run_id)


def collect_garbage(uri: str) -> None:
    """Run `mlflow gc`."""
    done = CliRunner().invoke(mlflow.cli.gc, ["--backend-store-uri", uri, "--tracking-uri", uri])
    assert done.exit_code == 0, done.output


def log_and_resume(study: TrackedStudy, between: Callable[[], None]) -> str:
    """Log an unfinished study, call `between`, resume it; return a final training's run."""
    first = study.open()
    first.start({}, {"config.yaml": "a: 1\n"})
    log_trial(first, 0, 2)
    log_trial(first, 1, 1, "unfinished")
    first.end("interrupted", None, [])
    first.close()
    tracking = Tracking(study.uri, study.experiment, None)
    training = tracking.start_run("s", {"kind": "training"}, {}, first.run_id)
    between()
    second = study.open()
    log_study(second, n_trials=3)
    second.close()
    return training


RESTORED, CREATED_AGAIN = (
    "was deleted: it is restored",
    "lacks runs of this study: they are created again from",
)


@pytest.mark.parametrize(
    ("store", "what", "for_good", "expected"),
    [
        ("database", "study", False, RESTORED),
        ("database", "all", False, RESTORED),
        ("database", "trial", False, RESTORED),
        ("database", "experiment", False, RESTORED),
        ("mlflow_server", "all", False, RESTORED),
        ("database", "study", True, CREATED_AGAIN),
        ("database", "all", True, CREATED_AGAIN),
        ("database", "trial", True, CREATED_AGAIN),
        ("database", "experiment", True, CREATED_AGAIN),
    ],
)
def test_runs_that_are_deleted_between_searches(
    request: pytest.FixtureRequest,
    study_at: Callable[[str], TrackedStudy],
    caplog: pytest.LogCaptureFixture,
    store: str,
    what: str,
    for_good: bool,
    expected: str,
) -> None:
    study = study_at(request.getfixturevalue(store))

    def lose() -> None:
        delete(study, what)
        if for_good:
            collect_garbage(study.uri)

    with caplog.at_level(logging.WARNING, "recsys"):
        training = log_and_resume(study, lose)
    (warned,) = warnings_of(caplog)
    assert expected in warned
    check_all(study, n_trials=3)
    (study_run,), trials = study.runs(PARENT), study.runs()
    # The record has the ids of the existing runs.
    assert study.attached.pop(None) == study_run.info.run_id
    assert study.attached == {n: run.info.run_id for n, run in enumerate(trials)}
    assert study.runs("", ViewType.DELETED_ONLY) == []
    # The final training is still below its study's run; no outbox has its operations.
    below = [
        run.info.run_id
        for run in study.runs(f"tags.`mlflow.parentRunId` = '{study_run.info.run_id}'")
    ]
    kept = [] if for_good and what in ("all", "experiment") else [training]
    assert sorted(below) == sorted([*(run.info.run_id for run in trials), *kept])
    assert len(study.runs("")) == 1 + len(below)
    ended = study.outbox.read_text()
    assert study.open().flush()
    assert study.outbox.read_text() == ended


@pytest.mark.parametrize("interrupted_at", ["create_run", "move_runs"])
def test_creating_runs_again_resumes_where_it_was_interrupted(
    database: str,
    study_at: Callable[[str], TrackedStudy],
    monkeypatch: pytest.MonkeyPatch,
    interrupted_at: str,
) -> None:
    study = study_at(database)

    def away(*_args: object) -> None:
        raise ConnectionError("away")

    def lose_and_be_interrupted() -> None:
        delete(study, "study")
        collect_garbage(study.uri)
        with monkeypatch.context() as patch:
            patch.setattr(outbox, "PATIENCE_SECONDS", 0.5)
            patch.setattr(Tracking, interrupted_at, away)
            broken = study.open()
            broken.resume()
            broken.close()

    training = log_and_resume(study, lose_and_be_interrupted)
    check_all(study, n_trials=3)
    assert study.runs("tags.kind = 'training'")[0].info.run_id == training
    assert {run.data.tags.get("mlflow.parentRunId") for run in study.runs("")} == {
        None,
        study.attached[None],
    }
    assert len(study.runs("")) == 1 + 3 + 1


def test_another_store_gets_all_runs(
    database: str,
    mlflow_server: str,
    study_at: Callable[[str], TrackedStudy],
    caplog: pytest.LogCaptureFixture,
) -> None:
    study = study_at(database)
    first = study.open()
    log_study(first)
    first.close()
    in_database = dict(study.attached)
    # To another store and back: each has every run once.
    for uri in (mlflow_server, database, mlflow_server):
        study.uri = uri
        caplog.clear()
        with caplog.at_level(logging.WARNING, "recsys"):
            other = study.open()
            log_study(other)
            other.close()
        assert warnings_of(caplog) == [
            f"MLflow at {uri} lacks runs of this study: they are created again from {study.outbox}."
        ]
        check_all(study)
        assert len(study.runs("", ViewType.ALL)) == 3
        assert (study.attached == in_database) == (uri == database)
