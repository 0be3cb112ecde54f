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
from tests.tracking.studies import PARENT, Told, tell_all, tell_trial

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"


@pytest.fixture
def told_to(tmp_path: Path) -> Callable[[str], Told]:
    return lambda uri: Told(uri, f"e-{uuid.uuid4().hex}", tmp_path)


@pytest.fixture(params=["database", "mlflow_server"])
def told(request: pytest.FixtureRequest, told_to: Callable[[str], Told]) -> Told:
    """A study in a database of its own, and one on a server."""
    return told_to(request.getfixturevalue(request.param))


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.startswith("recsys")]


def check_all(told: Told, n_trials: int = 2, n_epochs: int = 2) -> None:
    """What `tell_all` told is there, each of it once."""
    (parent,) = told.runs(PARENT)
    assert (parent.info.status, parent.data.tags["state"]) == ("FINISHED", "complete")
    assert told.history(parent, "loss") == [(1, 1.0)]
    client = MlflowClient(tracking_uri=told.uri)
    assert {file.path for file in client.list_artifacts(parent.info.run_id)} == {
        "config.yaml",
        "leaderboard.json",
    }
    trials = told.runs()
    assert [run.data.tags["trial"] for run in trials] == [str(number) for number in range(n_trials)]
    for number, run in enumerate(trials):
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert (run.info.status, run.data.tags["state"]) == ("FINISHED", "complete")
        assert run.data.params["seed"] == "7"
        assert told.history(run, "loss") == [(epoch, 1 / epoch) for epoch in range(1, n_epochs + 1)]
        assert told.attached.get(number) in (None, run.info.run_id)


def test_a_study_is_told(told: Told) -> None:
    runs = told.open()
    runs.start({"dataset": "ml-100k"}, {"config.yaml": "a: 1\n", "space.yaml": "b: 2\n"})
    assert runs.flush()
    (parent,) = told.runs(PARENT)
    assert runs.run_id == parent.info.run_id
    assert parent.info.status == "RUNNING"
    tags = parent.data.tags
    assert (tags["state"], tags["study"], tags["dataset"], parent.info.run_name) == (
        "running",
        "s",
        "ml-100k",
        "s",
    )
    tell_trial(runs, 3, 2, state=None)
    runs.end_trial(3, "failed", "Traceback: boom\n")
    rows: list[dict[str, object]] = [
        {"trial": "3", "value": 0.5, "mlflow_run_id": None},
        {"trial": "4", "value": None, "mlflow_run_id": "x"},
    ]
    runs.end("interrupted", {"trial": 3, "epoch": 2, "metrics": {"loss": 0.5}}, rows)
    runs.close()
    parent, (trial,) = told.runs(PARENT)[0], told.runs()
    assert told.attached == {None: parent.info.run_id, 3: trial.info.run_id}
    assert (parent.info.status, parent.data.tags["state"], parent.data.tags["best_trial"]) == (
        "KILLED",
        "interrupted",
        "3",
    )
    assert told.history(parent, "loss") == [(2, 0.5)]
    assert (trial.info.status, trial.data.tags["state"], trial.info.run_name) == (
        "FAILED",
        "failed",
        "s/3",
    )
    assert trial.data.params["model.name"] == "neumf"
    assert trial.info.start_time <= trial.info.end_time <= parent.info.end_time
    assert told.text(trial, "traceback.txt") == "Traceback: boom\n"
    client = MlflowClient(tracking_uri=told.uri)
    assert {file.path for file in client.list_artifacts(parent.info.run_id)} == {
        "config.yaml",
        "space.yaml",
        "leaderboard.json",
    }
    table = told.table(parent, "leaderboard.json")
    assert table["value"].tolist()[0] == 0.5
    assert table["trial"].astype(str).tolist() == ["3", "4"]


def test_what_is_said_twice_is_stored_once(told: Told) -> None:
    runs = told.open()
    runs.start({}, {})
    tell_trial(runs, 0, 1)
    runs.close()
    (run,) = told.runs()
    tracking = Tracking(told.uri, told.experiment, None)
    for _ in range(2):
        tracking.log_params(run.info.run_id, {"seed": 7})
        tracking.log_metrics(run.info.run_id, {"again": 0.25}, step=3, now=1_700_000_000_000)
        tracking.log_table(run.info.run_id, [{"a": 1}], "table.json")
    assert told.history(run, "again") == [(3, 0.25)]
    assert told.table(run, "table.json")["a"].tolist() == [1]


def test_parts_of_an_epoch(told: Told) -> None:
    runs = told.open()
    runs.start({}, {})
    runs.start_trial(0, Config(), seed=1)
    # Two parts an epoch; the worker dies in the second epoch, and tells of its second part once more.
    for step, epoch, whole in [
        (1, 1, False),
        (2, 1, True),
        (3, 2, False),
        (2, 1, True),
        (3, 2, False),
        (4, 2, True),
    ]:
        runs.log_step(0, step, epoch, whole, {"loss": 1 / step})
    assert runs.last_step(0) == 4
    assert runs.last_step(1) == 0
    runs.close()
    (run,) = told.runs()
    assert told.history(run, "loss") == [(1, 1 / 2), (2, 1 / 4)]
    assert told.history(run, "partial/loss") == [(1, 1.0), (3, 1 / 3)]


def test_a_search_goes_on_in_another_process(told: Told) -> None:
    first = told.open()
    first.start({}, {"config.yaml": "a: 1\n"})
    tell_trial(first, 0, 2)
    tell_trial(first, 1, 2, "unfinished")
    tell_trial(first, 2, 1, state=None)
    first.end("interrupted", None, [])
    first.close()
    second = told.open()
    assert not second.is_new
    assert second.run_id == first.run_id
    assert [second.has_ended(n, "complete") for n in (0, 1, 2, 3)] == [True, False, False, False]
    assert [second.last_step(n) for n in (0, 1, 2, 3)] == [2, 2, 1, 0]
    second.resume()
    second.start_trial(1, Config(), seed=7)
    assert not second.has_ended(1, "unfinished")
    assert second.flush()
    assert [run.info.status for run in told.runs()] == ["FINISHED", "RUNNING", "RUNNING"]
    assert told.runs(PARENT)[0].info.status == "RUNNING"
    tell_trial(second, 1, 3)
    tell_trial(second, 2, 3)
    # What the record has no ending of stays open; what ended before stays as it was.
    second.end_trial(0, "failed")
    second.end(
        "complete",
        {"trial": 0, "epoch": 1, "metrics": {"loss": 1.0}},
        [{"trial": "0", "loss": 1.0}],
    )
    second.close()
    trials = told.runs()
    assert [(run.info.status, run.data.tags["state"]) for run in trials] == [
        ("FINISHED", "complete")
    ] * 3
    for run, n_epochs in zip(trials, (2, 3, 3), strict=True):
        assert told.history(run, "loss") == [(epoch, 1 / epoch) for epoch in range(1, n_epochs + 1)]
    assert (told.runs(PARENT)[0].info.status, len(told.runs(PARENT))) == ("FINISHED", 1)


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
    told_to: Callable[[str], Told],
    store: str,
    request_name: str,
    nth: int,
) -> None:
    told = told_to(request.getfixturevalue(store))
    command = [
        sys.executable,
        "-m",
        "tests.tracking.studies",
        told.uri,
        told.experiment,
        str(told.folder),
        request_name,
        str(nth),
    ]
    killed = subprocess.run(command, cwd=ROOT, timeout=120, check=False)
    assert killed.returncode == -signal.SIGKILL
    resumed = told.open()
    tell_all(resumed)
    resumed.close()
    check_all(told)
    assert told.runs("", ViewType.DELETED_ONLY) == []
    ended = len(told.outbox.read_text().splitlines())
    # A third start has nothing to send.
    assert told.open().flush()
    assert len(told.outbox.read_text().splitlines()) == ended


@pytest.mark.parametrize("fault", ["error", "hang", "drop", "lose"])
def test_a_server_that_is_away_for_a_while(
    fault: str,
    faulty: FaultyServer,
    told_to: Callable[[str], Told],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(outbox, "PATIENCE_SECONDS", 3.0)
    told = told_to(faulty.uri)
    with caplog.at_level(logging.WARNING):
        runs = told.open()
        runs.start({}, {"config.yaml": "a: 1\n"})
        tell_trial(runs, 0, 1, state=None)
        assert runs.flush()
        faulty.fault = fault
        # Nothing here waits, and nothing of it arrives, unless only the answers are lost.
        tell_trial(runs, 0, 2)
        tell_trial(runs, 1, 2)
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
    assert warned.endswith(f"): the search goes on, and what is not sent is kept in {told.outbox}.")
    # A library's own warnings would be one a request.
    assert len(caplog.records) == 1
    check_all(told)


def test_a_server_that_starts_late(
    faulty: FaultyServer, told_to: Callable[[str], Told], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "_FIRST_DELAY", 0.05)
    port = int(faulty.uri.rpartition(":")[2])
    faulty.close()
    told = told_to(faulty.uri)
    runs = told.open(connected=False)
    tell_all(runs)
    assert not runs.flush()
    assert runs.run_id is None
    late = FaultyServer(faulty.behind, port)
    try:
        runs.close()
        check_all(told)
    finally:
        late.close()


def test_a_lost_answer_makes_no_second_run(
    faulty: FaultyServer, told_to: Callable[[str], Told]
) -> None:
    told = told_to(faulty.uri)
    runs = told.open()
    runs.start({}, {"config.yaml": "a: 1\n"})
    assert runs.flush()
    # MLflow's client repeats a request by itself: one call, two runs made.
    faulty.fault, faulty.only = "lose", "runs/create"
    tell_trial(runs, 0, 2, state=None)
    runs.close()
    assert faulty.count("runs/create") == 1 + 2
    (run,) = told.runs()
    assert told.attached == {None: runs.run_id, 0: run.info.run_id}
    assert told.history(run, "loss") == [(1, 1.0), (2, 0.5)]


def test_what_mlflow_refuses_is_left_out(told: Told, caplog: pytest.LogCaptureFixture) -> None:
    runs = told.open()
    runs.start({}, {"config.yaml": "a: 1\n"})
    runs.start_trial(0, Config(), seed=7)
    with caplog.at_level(logging.WARNING, "recsys"):
        runs.log_step(0, 1, 1, True, {"ndcg@10": 1.0})
        runs.log_step(0, 2, 2, True, {"loss": 0.5})
        assert runs.flush()
        (warned,) = warnings_of(caplog)
        assert warned.startswith("MLflow refused metrics of the run of trial 0 (")
        assert "ndcg@10" in warned
        (trial,) = told.runs()
        assert told.history(trial, "loss") == [(2, 0.5)]
        runs.close()
    # It is noted as such, and not sent again.
    (refused,) = [
        line for line in map(json.loads, told.outbox.read_text().splitlines()) if "refused" in line
    ]
    assert "ndcg@10" in refused["refused"]
    assert told.open().flush()
    assert len(warnings_of(caplog)) == 1


def test_runs_that_are_deleted_during_a_search(
    told: Told, caplog: pytest.LogCaptureFixture
) -> None:
    client = MlflowClient(tracking_uri=told.uri)
    runs = told.open()
    runs.start({}, {"config.yaml": "a: 1\n"})
    tell_trial(runs, 0, 1, state=None)
    assert runs.flush()
    (study,), (trial,) = told.runs(PARENT), told.runs()
    with caplog.at_level(logging.WARNING, "recsys"):
        client.delete_run(trial.info.run_id)
        tell_trial(runs, 0, 2)
        assert runs.flush()
        assert warnings_of(caplog) == ["In MLflow the run of trial 0 was deleted: it is restored."]
        client.delete_run(study.info.run_id)
        runs.start_trial(1, Config(), seed=7)
        assert runs.flush()
        # Not only at the end: below a deleted run nobody sees what goes on.
        assert [run.info.run_id for run in told.runs(PARENT)] == [study.info.run_id]
        client.delete_experiment(study.info.experiment_id)
        tell_trial(runs, 1, 2)
        runs.end(
            "complete",
            {"trial": 0, "epoch": 1, "metrics": {"loss": 1.0}},
            [{"trial": "0", "loss": 1.0}],
        )
        runs.close()
    assert warnings_of(caplog)[1:] == [
        "In MLflow the study's run was deleted: it is restored.",
        f"MLflow's experiment {told.experiment} was deleted: it is restored with its runs.",
    ]
    check_all(told)


def delete(told: Told, what: str) -> None:
    """Delete runs as MLflow's UI does: the study's, those of all, that of the trial which is not done, or the experiment."""
    client = MlflowClient(tracking_uri=told.uri)
    (study,), trials = told.runs(PARENT), told.runs()
    if what == "experiment":
        client.delete_experiment(study.info.experiment_id)
    for run in {"study": [study], "all": told.runs(""), "trial": [trials[1]], "experiment": []}[
        what
    ]:
        client.delete_run(run.info.run_id)


def collect_garbage(uri: str) -> None:
    """Run `mlflow gc`."""
    done = CliRunner().invoke(mlflow.cli.gc, ["--backend-store-uri", uri, "--tracking-uri", uri])
    assert done.exit_code == 0, done.output


def begin_and_go_on(told: Told, between: Callable[[], None]) -> str:
    """Tell of a study with one trial that is done and one that is not, and go on behind `between`; returns its final training."""
    first = told.open()
    first.start({}, {"config.yaml": "a: 1\n"})
    tell_trial(first, 0, 2)
    tell_trial(first, 1, 1, "unfinished")
    first.end("interrupted", None, [])
    first.close()
    tracking = Tracking(told.uri, told.experiment, None)
    training = tracking.start_run("s", {"kind": "training"}, {}, first.run_id)
    between()
    second = told.open()
    tell_all(second, n_trials=3)
    second.close()
    return training


RESTORED, MADE_ANEW = (
    "was deleted: it is restored",
    "lacks runs of this study: they are made anew from",
)


@pytest.mark.parametrize(
    ("store", "what", "for_good", "told_of"),
    [
        ("database", "study", False, RESTORED),
        ("database", "all", False, RESTORED),
        ("database", "trial", False, RESTORED),
        ("database", "experiment", False, RESTORED),
        ("mlflow_server", "all", False, RESTORED),
        ("database", "study", True, MADE_ANEW),
        ("database", "all", True, MADE_ANEW),
        ("database", "trial", True, MADE_ANEW),
        ("database", "experiment", True, MADE_ANEW),
    ],
)
def test_runs_that_are_deleted_between_searches(
    request: pytest.FixtureRequest,
    told_to: Callable[[str], Told],
    caplog: pytest.LogCaptureFixture,
    store: str,
    what: str,
    for_good: bool,
    told_of: str,
) -> None:
    told = told_to(request.getfixturevalue(store))

    def lose() -> None:
        delete(told, what)
        if for_good:
            collect_garbage(told.uri)

    with caplog.at_level(logging.WARNING, "recsys"):
        training = begin_and_go_on(told, lose)
    (warned,) = warnings_of(caplog)
    assert told_of in warned
    check_all(told, n_trials=3)
    (study,), trials = told.runs(PARENT), told.runs()
    # The record has the ids of the runs that there are.
    assert told.attached.pop(None) == study.info.run_id
    assert told.attached == {n: run.info.run_id for n, run in enumerate(trials)}
    assert told.runs("", ViewType.DELETED_ONLY) == []
    # A final training lies below its study's run as before; its own operations are in no outbox.
    below = [
        run.info.run_id for run in told.runs(f"tags.`mlflow.parentRunId` = '{study.info.run_id}'")
    ]
    kept = [] if for_good and what in ("all", "experiment") else [training]
    assert sorted(below) == sorted([*(run.info.run_id for run in trials), *kept])
    assert len(told.runs("")) == 1 + len(below)
    ended = told.outbox.read_text()
    assert told.open().flush()
    assert told.outbox.read_text() == ended


@pytest.mark.parametrize("cut_off_at", ["create_run", "move_runs"])
def test_making_runs_anew_goes_on_where_it_was_cut_off(
    database: str, told_to: Callable[[str], Told], monkeypatch: pytest.MonkeyPatch, cut_off_at: str
) -> None:
    told = told_to(database)

    def away(*_args: object) -> None:
        raise ConnectionError("away")

    def lose_and_be_cut_off() -> None:
        delete(told, "study")
        collect_garbage(told.uri)
        with monkeypatch.context() as patch:
            patch.setattr(outbox, "PATIENCE_SECONDS", 0.5)
            patch.setattr(Tracking, cut_off_at, away)
            broken = told.open()
            broken.resume()
            broken.close()

    training = begin_and_go_on(told, lose_and_be_cut_off)
    check_all(told, n_trials=3)
    assert told.runs("tags.kind = 'training'")[0].info.run_id == training
    assert {run.data.tags.get("mlflow.parentRunId") for run in told.runs("")} == {
        None,
        told.attached[None],
    }
    assert len(told.runs("")) == 1 + 3 + 1


def test_another_store_is_told_all(
    database: str,
    mlflow_server: str,
    told_to: Callable[[str], Told],
    caplog: pytest.LogCaptureFixture,
) -> None:
    told = told_to(database)
    first = told.open()
    tell_all(first)
    first.close()
    in_database = dict(told.attached)
    # Away from the store and back to it: what a study was told lies in both, once.
    for uri in (mlflow_server, database, mlflow_server):
        told.uri = uri
        caplog.clear()
        with caplog.at_level(logging.WARNING, "recsys"):
            other = told.open()
            tell_all(other)
            other.close()
        assert warnings_of(caplog) == [
            f"MLflow at {uri} lacks runs of this study: they are made anew from {told.outbox}."
        ]
        check_all(told)
        assert len(told.runs("", ViewType.ALL)) == 3
        assert (told.attached == in_database) == (uri == database)
