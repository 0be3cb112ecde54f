"""Joining a Ray cluster, or starting Ray on this machine.

Stands before all work with Ray, which begins with preparing the data.
"""

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
    """The address of the Ray cluster to join; None where Ray is started on this machine."""
    return config.cluster.address or os.environ.get("RAY_ADDRESS") or None


def connect(config: Config) -> None:
    """Join the Ray cluster of the config, or start Ray on this machine; nothing where Ray is running already.

    Raises:
        InputError: if there is no cluster at the address, or one of other versions; if the path of the temporary folder is too
            long for Ray's sockets.
        OSError: if the temporary folder cannot be written, or has no room.
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
        with _sigterm_kept():
            ray.init(
                address=address,
                include_dashboard=False,
                log_to_driver=True,
                logging_level=logging.ERROR,
            )
    except (OSError, ray.exceptions.AuthenticationError) as error:
        if "AF_UNIX" in str(error):
            raise InputError(
                "TMPDIR",
                "must be a path short enough for Ray's sockets in it, which may have 107 bytes",
                f"{temporary_folders()[0]}",
                "Set TMPDIR=/tmp, or RAY_TMPDIR for Ray alone.",
            ) from None
        if address is None:
            raise
        raise InputError(
            "cluster.address",
            "must be a running Ray cluster",
            f"{address!r} ({str(error).splitlines()[0]})",
            "Start it, bring its token (~/.ray/auth_token), or leave the address out to use this machine.",
        ) from None
    except RuntimeError as error:
        if not str(error).startswith("Version mismatch"):
            raise
        versions = " ".join(str(error).split())
        raise InputError(
            "cluster.address",
            "must be a cluster of the same Ray and Python",
            f"{address!r} ({versions})",
            "Install here what the cluster has, or the other way round.",
        ) from None


def _hide_passwords_of_command_line() -> None:
    """Replace this process's command line by one without passwords: Ray shows it to everybody on a cluster, `ps` on a machine."""
    import ray._raylet

    given = " ".join(sys.orig_argv)
    shown = without_passwords(given)
    if shown != given:
        ray._raylet.setproctitle(shown)  # type: ignore[attr-defined]


@contextmanager
def _sigterm_kept() -> Iterator[None]:
    """Keep what SIGTERM does here: Ray's own handlers end the process with its number, or with SIGABRT and a trace."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit as end:
        # Ray's handler, while Ray starts.
        raise KeyboardInterrupt from end
    finally:
        signal.signal(signal.SIGTERM, before)


def _ping(address: str | None) -> None:
    """Open the cluster's port once: Ray itself tries a wrong address for minutes, then ends the process."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()
