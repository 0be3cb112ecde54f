"""Lease of a study: the right of one driver to write its record.

Acquired before the record is opened for writing, and renewed every few seconds. A driver that finds
a lease watches it: a lease that changes has a live holder, a lease that does not change for
`EXPIRY_SECONDS` has expired, and a lease whose process has ended on this machine is free at once.
Clocks of different machines are never compared.
"""

import logging
import os
import platform
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recsys.errors import InputError
from recsys.search.record.lease_stores import Found, Holder, LeaseFile, LeaseObject
from recsys.storage.s3 import url_of

RENEWAL_SECONDS = 4.0
EXPIRY_SECONDS = 20.0
"""A lease that has not changed for this long has expired: five renewals are missing."""
_POLL_SECONDS = 0.25
_log = logging.getLogger(__name__)
_PID_NAMESPACE = Path("/proc/self/ns/pid")


@contextmanager
def hold(folder: Path) -> Iterator[threading.Event]:
    """Hold the lease of a study while the block runs; yield an event that is set if it is lost.

    If the lease is lost, by a long suspension or a failed renewal, SIGTERM ends the process.

    Raises:
        InputError: if another process holds the lease; if it is in S3 and S3 does not answer.
    """
    path, holder = folder / "lease.json", _this_process()
    url = url_of(path)
    lease: LeaseFile | LeaseObject = LeaseFile(path) if url is None else LeaseObject(url)
    with _s3_errors(url):
        _acquire(lease, folder, holder)
    stopped, is_lost = threading.Event(), threading.Event()
    arguments = (lease, folder, holder, stopped, is_lost)
    renewal = threading.Thread(target=_renew, args=arguments, daemon=True)
    renewal.start()
    try:
        yield is_lost
    finally:
        stopped.set()
        renewal.join()
        with _s3_errors(url):
            lease.release(holder)


@contextmanager
def _s3_errors(url: str | None) -> Iterator[None]:
    """Turn the error of an S3 that does not answer or denies access into an `InputError`."""
    try:
        yield
    except ConnectionError as error:
        remedy = "Check AWS_ENDPOINT_URL and the credentials in the environment."
        raise InputError(
            url, "must be read and written in S3", f"no answer ({error})", remedy
        ) from None


def _acquire(lease: LeaseFile | LeaseObject, folder: Path, holder: Holder) -> None:
    """Take the lease once it is free; a holder that renews it meanwhile is an error."""
    watched, expires = None, 0.0
    while True:
        found = lease.read()
        is_free = (
            found is None or _has_ended(found) or (found == watched and time.monotonic() >= expires)
        )
        if is_free and lease.take(found, holder):
            return
        if watched is None:
            watched, expires = found, time.monotonic() + EXPIRY_SECONDS
        elif found != watched:
            raise _held_by(found, folder)
        time.sleep(_POLL_SECONDS)


def _held_by(found: Found | None, folder: Path) -> InputError:
    other = "another process"
    if found is not None and found.holder is not None:
        other = f"process {found.holder.pid} on {found.holder.host}"
    return InputError(
        folder,
        "must be searched by one process at a time",
        f"{other}, which runs it already",
        "Wait for it, or end it.",
    )


def _renew(
    lease: LeaseFile | LeaseObject,
    folder: Path,
    holder: Holder,
    stopped: threading.Event,
    is_lost: threading.Event,
) -> None:
    """Renew the lease until `stopped` is set; end the process if the lease is lost."""
    renewed = time.monotonic()
    while not stopped.wait(RENEWAL_SECONDS):
        lost = None
        try:
            if lease.renew(holder):
                renewed = time.monotonic()
            else:
                lost = "another process took it"
        except ConnectionError as error:
            if time.monotonic() - renewed > EXPIRY_SECONDS - RENEWAL_SECONDS:
                lost = str(error)
        except OSError as error:
            lost = str(error)
        if lost is not None:
            # Another driver may take an expired lease, and two would write one record.
            _log.error(
                "%s: this process has lost the lease of the study (%s) and ends.", folder, lost
            )
            is_lost.set()
            os.kill(os.getpid(), signal.SIGTERM)
            return


def _this_process() -> Holder:
    namespace = str(_PID_NAMESPACE.readlink()) if _PID_NAMESPACE.exists() else ""
    return Holder(id=uuid.uuid4().hex, host=platform.node(), namespace=namespace, pid=os.getpid())


def _has_ended(found: Found) -> bool:
    """Return whether the holder's process ran on this machine and has ended."""
    holder, own = found.holder, _this_process()
    if holder is None or (holder.host, holder.namespace) != (own.host, own.namespace):
        return False
    try:
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # it runs, as another user
        return False
    return False
