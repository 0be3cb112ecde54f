"""One driver a study: a lease that a second driver is refused by.

Stands before the record is opened for writing. The holder shows every few seconds that it lives. Who finds a lease watches
it: one that changes has a holder, one that stays as it is has lost it, and one whose process has ended on this machine is free at
once. No clock is compared with another machine's.
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
from recsys.search.record.lease_places import Found, Holder, LeaseFile, LeaseObject
from recsys.storage.s3 import url_of

BEAT_SECONDS = 4.0
EXPIRY_SECONDS = 20.0
"""How long a lease stays as it is before it is free: five beats that did not come."""
_POLL_SECONDS = 0.25
_log = logging.getLogger(__name__)
_PID_NAMESPACE = Path("/proc/self/ns/pid")


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Hold the lease of a study while the block runs; who loses it, being stopped for long, is ended by SIGTERM.

    Raises:
        InputError: if another process holds it; if it lies in S3, which does not answer.
    """
    path, holder = folder / "lease.json", _this_process()
    url = url_of(path)
    lease: LeaseFile | LeaseObject = LeaseFile(path) if url is None else LeaseObject(url)
    with _s3_answers(url):
        _claim(lease, folder, holder)
    stopped = threading.Event()
    beating = threading.Thread(target=_beat, args=(lease, folder, holder, stopped), daemon=True)
    beating.start()
    try:
        yield
    finally:
        stopped.set()
        beating.join()
        with _s3_answers(url):
            lease.release(holder)


@contextmanager
def _s3_answers(url: str | None) -> Iterator[None]:
    """Raise an `InputError` that names the place in S3 where it does not answer or lets nobody in."""
    try:
        yield
    except ConnectionError as error:
        remedy = "See to AWS_ENDPOINT_URL and to the credentials in the environment."
        raise InputError(
            url, "must be read and written in S3", f"no answer ({error})", remedy
        ) from None


def _claim(lease: LeaseFile | LeaseObject, folder: Path, holder: Holder) -> None:
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
            who = (
                ""
                if found is None or found.holder is None
                else f", process {found.holder.pid} on {found.holder.host}"
            )
            raise InputError(
                folder,
                "must be searched by one process at a time",
                f"one that runs it already{who}",
                "Wait for it, or end it.",
            )
        time.sleep(_POLL_SECONDS)


def _beat(
    lease: LeaseFile | LeaseObject, folder: Path, holder: Holder, stopped: threading.Event
) -> None:
    shown = time.monotonic()
    while not stopped.wait(BEAT_SECONDS):
        lost = None
        try:
            if lease.beat(holder):
                shown = time.monotonic()
            else:
                lost = "another process took it over"
        except ConnectionError as error:
            if time.monotonic() - shown > EXPIRY_SECONDS - BEAT_SECONDS:
                lost = str(error)
        except OSError as error:
            lost = str(error)
        if lost is not None:
            # Who cannot show that it is alive is taken for dead, and two would write one record.
            _log.error("%s: this process holds its lease no longer (%s) and ends.", folder, lost)
            os.kill(os.getpid(), signal.SIGTERM)
            return


def _this_process() -> Holder:
    namespace = str(_PID_NAMESPACE.readlink()) if _PID_NAMESPACE.exists() else ""
    return Holder(id=uuid.uuid4().hex, host=platform.node(), namespace=namespace, pid=os.getpid())


def _has_ended(found: Found) -> bool:
    """Whether the holder's process ran on this machine and runs no longer."""
    holder, here = found.holder, _this_process()
    if holder is None or (holder.host, holder.namespace) != (here.host, here.namespace):
        return False
    try:
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # it runs, as another user
        return False
    return False
