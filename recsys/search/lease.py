"""One driver a study: a lease that a second driver is refused by.

Stands before the record is opened for writing. The holder counts up in the lease every few seconds. Who finds a lease watches it:
one that counts has a holder, one that stands still has lost it, and one whose process has ended on this machine is free at once.
No clock is compared with another machine's.
"""

import json
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
from typing import Any

from recsys.object_store import fetch, remove, url_of
from recsys.storage import one_at_a_time, write_atomically

BEAT_SECONDS = 4.0
EXPIRY_SECONDS = 20.0
"""How long a lease stands still before it is free: five beats that did not come."""
_POLL_SECONDS = 0.25
_SETTLE_SECONDS = 1.0
_log = logging.getLogger(__name__)
_PID_NAMESPACE = Path("/proc/self/ns/pid")


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Hold the lease of a study while the block runs; who loses it, being stopped for long, is ended by SIGTERM.

    Raises:
        BlockingIOError: if another process holds it.
    """
    lease, holder = folder / "lease.json", _this_process()
    _claim(lease, holder)
    stopped = threading.Event()
    beating = threading.Thread(target=_beat, args=(lease, holder, stopped), daemon=True)
    beating.start()
    try:
        yield
    finally:
        stopped.set()
        beating.join()
        with one_at_a_time(lease):
            if _is_ours(lease, holder):
                remove(lease)


def _claim(lease: Path, holder: dict[str, Any]) -> None:
    watched, expires = None, 0.0
    while True:
        with one_at_a_time(lease):
            found = _read(lease)
            if found is None or _has_ended(found) or (found == watched and time.monotonic() >= expires):
                _write(lease, {**holder, "beat": 0})
                break
        if watched is None:
            watched, expires = found, time.monotonic() + EXPIRY_SECONDS
        elif found != watched:
            raise BlockingIOError(
                f"{lease.parent}: must be searched by one process at a time, but got one that runs it already, "
                f"process {found['pid']} on {found['host']}. Wait for it, or end it."
            )
        time.sleep(_POLL_SECONDS)
    if url_of(lease) is not None:
        # S3 has no lock: of several that found the lease free, the one that wrote last holds it.
        time.sleep(_SETTLE_SECONDS)
        if not _is_ours(lease, holder):
            raise BlockingIOError(f"{lease.parent}: must be searched by one process at a time, but got two at once. Try again.")


def _beat(lease: Path, holder: dict[str, Any], stopped: threading.Event) -> None:
    beat = 0
    while not stopped.wait(BEAT_SECONDS):
        beat += 1
        try:
            with one_at_a_time(lease):
                if _is_ours(lease, holder):
                    _write(lease, {**holder, "beat": beat})
                    continue
        except OSError as error:  # the disk is full, or S3 is away: should another process take over meanwhile, it is seen later
            _log.warning("%s: the lease cannot be renewed for now (%s).", lease.parent, error)
            continue
        _log.error("%s: another process took over this study; this one ends.", lease.parent)
        os.kill(os.getpid(), signal.SIGTERM)
        return


def _this_process() -> dict[str, Any]:
    """Who holds a lease. A process id means something on one machine, and there in one namespace."""
    namespace = str(_PID_NAMESPACE.readlink()) if _PID_NAMESPACE.exists() else ""
    return {"id": uuid.uuid4().hex, "host": platform.node(), "namespace": namespace, "pid": os.getpid()}


def _has_ended(found: dict[str, Any]) -> bool:
    """Whether the holder's process ran on this machine and runs no longer."""
    here = _this_process()
    if any(found[name] != here[name] for name in ("host", "namespace")):
        return False
    try:
        os.kill(found["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # it runs, as another user
        return False
    return False


def _is_ours(lease: Path, holder: dict[str, Any]) -> bool:
    found = _read(lease)
    return found is not None and found["id"] == holder["id"]


def _read(lease: Path) -> dict[str, Any] | None:
    fetch(lease)
    return json.loads(lease.read_text(encoding="utf-8")) if lease.exists() else None


def _write(lease: Path, content: dict[str, Any]) -> None:
    with write_atomically(lease) as file:
        file.write_text(json.dumps(content), encoding="utf-8")
