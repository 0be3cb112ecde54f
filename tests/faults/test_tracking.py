"""The MLflow server dies, hangs or answers 500 during a search, or does not run at its start."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from recsys.config.files import dump_yaml
from tests.faults.search_process import SearchProcess, n_reports, read_trials, started
from tests.small_search import SPACE, logged_steps, logged_trials, ratings_csv
from tests.tracking.faulty import FaultyServer
from tests.tracking.server import Server, running_server

N_TRIALS = 4
AWAY, KEPT = " does not answer (", " operations are kept in "


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "ratings.csv").write_text(ratings_csv())
    (tmp_path / "space.yaml").write_text(dump_yaml(SPACE))
    return tmp_path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("server")) as running:
        yield running


def flags(folder: Path, uri: str) -> list[object]:
    return [
        *(
            "--space",
            folder / "space.yaml",
            "--data",
            folder / "ratings.csv",
            "--trials",
            N_TRIALS,
            "--max-epochs",
            4,
        ),
        *(
            "--set",
            "training.batch_size=16",
            "--concurrent",
            1,
            "--set",
            f"tracking.uri={uri}",
            "--set",
            f"tracking.experiment={folder.name}",
        ),
    ]


def check_sent(folder: Path, uri: str) -> None:
    """Check that MLflow has each trial and each of its epochs once."""
    runs, trials = logged_trials(uri, folder.name), read_trials(folder)
    assert (
        [int(run.data.tags["trial"]) for run in runs]
        == list(range(N_TRIALS))
        == [trial.number for trial in trials]
    )
    for run, trial in zip(runs, trials, strict=True):
        assert run.info.status == "FINISHED"
        assert run.data.params["seed"]
        assert logged_steps(uri, run, "val_ndcg_at_10") == sorted(trial.intermediate_values)


def check_one_warning(errors: str, uri: str) -> None:
    assert errors.count(AWAY) == 1
    assert f"MLflow at {uri}{AWAY}" in errors
    assert "Traceback" not in errors
    assert "Retrying" not in errors


def wait_for_warning(search: SearchProcess) -> None:
    search.wait_until(lambda: AWAY in search.errors.read_text(encoding="utf-8"))


def stop(server: Server) -> None:
    server.send_signal(signal.SIGSTOP)


def resume(server: Server) -> None:
    server.send_signal(signal.SIGCONT)


@pytest.mark.parametrize(
    ("leave", "come_back"), [(Server.kill, Server.start), (stop, resume)], ids=["killed", "hangs"]
)
def test_a_server_that_is_down_until_the_end(
    cluster: str,
    folder: Path,
    server: Server,
    leave: Callable[[Server], None],
    come_back: Callable[[Server], None],
) -> None:
    with started(folder, *flags(folder, server.uri), cluster=cluster) as search:
        search.wait_until(lambda: n_reports(folder) >= 2)
        leave(server)
        code, answer, errors = search.end()
    assert code == 0, errors
    assert answer["counts"]["complete"] + answer["counts"]["pruned"] == N_TRIALS
    assert answer["best"] is not None
    assert "resuming the study sends them." in errors
    assert errors.count(KEPT) == 1
    assert errors.count(AWAY) <= 1
    come_back(server)
    with started(folder, "--resume", cluster=cluster) as search:
        code, again, errors = search.end()
    assert code == 0, errors
    assert (again["trials"], again["busy_seconds"]) == (answer["trials"], 0)
    assert AWAY not in errors
    check_sent(folder, server.uri)


def test_a_server_that_answers_500_for_a_while(cluster: str, folder: Path, server: Server) -> None:
    between = FaultyServer(server.uri)
    try:
        with started(folder, *flags(folder, between.uri), cluster=cluster) as search:
            search.wait_until(lambda: n_reports(folder) >= 2)
            between.fault = "error"
            wait_for_warning(search)
            between.fault = None
            code, _, errors = search.end()
    finally:
        between.close()
    assert code == 0, errors
    check_one_warning(errors, between.uri)
    assert KEPT not in errors
    check_sent(folder, server.uri)


def test_a_search_that_starts_without_a_server(cluster: str, folder: Path, server: Server) -> None:
    port = FaultyServer(server.uri)
    port.close()  # no process listens on the port now
    with started(
        folder, *flags(folder, port.uri), "--set", "tracking.required=false", cluster=cluster
    ) as search:
        code, answer, errors = search.end()
    assert code == 0, errors
    assert answer["mlflow"] is None
    assert f"MLflow at {port.uri} cannot be reached (" in errors
    late = FaultyServer(server.uri, int(port.uri.rpartition(":")[2]))
    try:
        with started(folder, "--resume", cluster=cluster) as search:
            code, answer, errors = search.end()
        assert code == 0, errors
        assert answer["mlflow"]["tracking_uri"] == port.uri
        check_sent(folder, server.uri)
    finally:
        late.close()
