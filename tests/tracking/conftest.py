"""A real MLflow server, one that fails in front of it, and a store of its own in a file."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator

import pytest

from tests.tracking.faulty import FaultyServer


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an MLflow server on loopback."""
    folder = tmp_path_factory.mktemp("server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}", "--artifacts-destination", str(folder / "artifacts")]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"},
        )
    uri = f"http://127.0.0.1:{port}"
    try:
        _wait_for(uri, process)
        yield uri
    finally:
        # Its workers too, which would wait for the clients to close their connections.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)


@pytest.fixture
def faulty(mlflow_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyServer]:
    """A server in front of MLflow's, before which MLflow's client is impatient."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    server = FaultyServer(mlflow_server)
    yield server
    server.close()


def _wait_for(uri: str, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 120
    while True:
        assert process.poll() is None, "MLflow's server has ended"
        try:
            with urllib.request.urlopen(f"{uri}/health", timeout=5):
                return
        except OSError:
            assert time.monotonic() < end, "MLflow's server does not answer"
            time.sleep(0.1)
