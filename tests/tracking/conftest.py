"""A real MLflow server, and one that fails in front of it."""

from collections.abc import Iterator

import pytest

from tests.tracking.faulty import FaultyServer
from tests.tracking.server import running_server


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an MLflow server on loopback."""
    with running_server(tmp_path_factory.mktemp("server")) as server:
        yield server.uri


@pytest.fixture
def faulty(mlflow_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyServer]:
    """A server in front of MLflow's, before which MLflow's client is impatient."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    server = FaultyServer(mlflow_server)
    yield server
    server.close()
