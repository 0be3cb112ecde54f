"""A real MLflow server in a process group of its own, which can be stopped and killed."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

GIVE_UP_SECONDS = 240.0


class Server:
    """MLflow's server on loopback, with its database and artifacts in `folder`."""

    def __init__(self, folder: Path, *flags: str) -> None:
        self.folder = folder
        self._flags = flags
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        """Start it, again on the same port and files, and wait until it answers."""
        command = [
            sys.executable,
            "-m",
            "mlflow",
            "server",
            "--host",
            "127.0.0.1",
            "--port",
            str(self.port),
            "--workers",
            "1",
        ]
        command += ["--backend-store-uri", f"sqlite:///{self.folder / 'mlflow.db'}"]
        command += ["--artifacts-destination", str(self.folder / "artifacts"), *self._flags]
        # Without its processes for jobs, the server starts with a fifth of the CPU time.
        settings = {
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        }
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command,
                cwd=self.folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, **settings},
            )
        end = time.monotonic() + GIVE_UP_SECONDS
        while True:
            assert self.process.poll() is None, "MLflow's server has ended"
            try:
                with urllib.request.urlopen(f"{self.uri}/health", timeout=5):
                    return
            except OSError:
                assert time.monotonic() < end, "MLflow's server does not answer"
                time.sleep(0.1)

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the server and its workers, which may wait for open connections."""
        os.killpg(self.process.pid, number)

    def kill(self) -> None:
        """End it at once."""
        if self.process.poll() is None:
            self.send_signal(signal.SIGKILL)
            self.process.wait(30)


@contextmanager
def running_server(folder: Path, *flags: str) -> Iterator[Server]:
    """A server that is killed in the end."""
    server = Server(folder, *flags)
    try:
        yield server
    finally:
        server.kill()
