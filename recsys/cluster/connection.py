"""Connection to a Ray cluster, or start of Ray on this machine, before any task runs."""

import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from recsys.config.schema import Config
from recsys.errors import InputError
from recsys.storage.credentials import without_passwords
from recsys.storage.path_errors import require_temporary_folder, temporary_folders


def cluster_address(config: Config) -> str | None:
    """Return the address of the Ray cluster to join, None to start Ray on this machine."""
    return config.cluster.address or os.environ.get("RAY_ADDRESS") or None


def connect(config: Config) -> None:
    """Join the Ray cluster of the config, or start Ray on this machine, unless Ray runs already.

    Raises:
        InputError: if the address is malformed, or has no cluster, or one with another version of
            Ray or Python; if the path of the temporary folder is too long for Ray's sockets.
        OSError: if the temporary folder cannot be written or is full.
    """
    import ray

    if ray.is_initialized():
        return
    address = cluster_address(config)
    _hide_passwords_of_command_line()
    if address is None:
        require_temporary_folder()
    try:
        _ping(address)
        with _keeping_sigterm():
            ray.init(
                # Without an address, Ray would join any cluster that runs on this machine.
                address=address or "local",
                include_dashboard=False,
                log_to_driver=True,
                logging_level=logging.ERROR,
            )
    except (OSError, RuntimeError, ValueError, ray.exceptions.AuthenticationError) as error:
        if (mistake := _mistake(error, address)) is None:
            raise
        raise mistake from None


def _mistake(error: Exception, address: str | None) -> InputError | None:
    """Return the user's mistake that made the connection fail, None if there is none."""
    if isinstance(error, RuntimeError):
        if not str(error).startswith("Version mismatch"):
            return None
        return InputError(
            "cluster.address",
            "must be a cluster of the same Ray and Python",
            f"{address!r} ({' '.join(str(error).split())})",
            "Install the same versions on both.",
        )
    if "AF_UNIX" in str(error):
        return InputError(
            "TMPDIR",
            "must be a path short enough for Ray's sockets in it, which may have 107 bytes",
            temporary_folders()[0],
            "Set TMPDIR=/tmp, or RAY_TMPDIR for Ray alone.",
        )
    if address is None:
        return None
    return InputError(
        "cluster.address",
        "must be a running Ray cluster",
        f"{address!r} ({str(error).splitlines()[0]})",
        "Start it, copy its token to ~/.ray/auth_token, or leave the address out to use "
        "this machine.",
    )


def _hide_passwords_of_command_line() -> None:
    """Remove passwords from this process's command line, which Ray and `ps` show to others."""
    import ray._raylet

    typed = " ".join(sys.orig_argv)
    shown = without_passwords(typed)
    if shown != typed:
        ray._raylet.setproctitle(shown)  # type: ignore[attr-defined]


@contextmanager
def _keeping_sigterm() -> Iterator[None]:
    """Restore the handler of SIGTERM after `ray.init`, which installs its own.

    Ray's handlers would end the process with another exit code, or with SIGABRT and a stack trace.
    """
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit as end:
        # Ray's handler raises it if SIGTERM arrives while Ray starts.
        raise KeyboardInterrupt from end
    finally:
        signal.signal(signal.SIGTERM, before)


def _ping(address: str | None) -> None:
    """Connect to the cluster's port once. Ray would retry for minutes, then end the process."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()
