"""One driver a study: a lease that a second driver is refused by.

Stands before the record is opened for writing. The holder touches the lease every few seconds, which takes no room on a disk that
is full. Who finds a lease watches it: one that is touched has a holder, one that stands still has lost it, and one whose process
has ended on this machine is free at once. No clock is compared with another machine's.
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
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from recsys.object_store import fetch, remove, touch, url_of
from recsys.storage import one_at_a_time, write_atomically

BEAT_SECONDS = 4.0
EXPIRY_SECONDS = 20.0
"""How long a lease stands still before it is free: five beats that did not come."""
_POLL_SECONDS = 0.25
_SETTLE_SECONDS = 1.0
_log = logging.getLogger(__name__)
_PID_NAMESPACE = Path("/proc/self/ns/pid")


class Holder(BaseModel):
    """Who holds a lease. A process id means something on one machine, and there in one namespace."""

    model_config = ConfigDict(frozen=True)

    id: str
    host: str
    namespace: str
    pid: int = Field(gt=0, lt=2**31)


@dataclass(frozen=True)
class _Found:
    """A lease as it was found.

    `holder`: None where it is torn, as a crash of the machine leaves it. `beat`: when it was last touched, in nanoseconds by a
    clock that may be another machine's.
    """

    holder: Holder | None
    beat: int


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


def _claim(lease: Path, holder: Holder) -> None:
    watched, expires = None, 0.0
    while True:
        with one_at_a_time(lease):
            found = _read(lease)
            if found is None or _has_ended(found) or (found == watched and time.monotonic() >= expires):
                with write_atomically(lease) as file:
                    file.write_text(holder.model_dump_json(), encoding="utf-8")
                break
        if watched is None:
            watched, expires = found, time.monotonic() + EXPIRY_SECONDS
        elif found != watched:
            who = "" if found.holder is None else f", process {found.holder.pid} on {found.holder.host}"
            raise BlockingIOError(
                f"{lease.parent}: must be searched by one process at a time, but got one that runs it already{who}. "
                "Wait for it, or end it."
            )
        time.sleep(_POLL_SECONDS)
    if url_of(lease) is not None:
        # S3 has no lock: of several that found the lease free, the one that wrote last holds it.
        time.sleep(_SETTLE_SECONDS)
        if not _is_ours(lease, holder):
            raise BlockingIOError(f"{lease.parent}: must be searched by one process at a time, but got two at once. Try again.")


def _beat(lease: Path, holder: Holder, stopped: threading.Event) -> None:
    while not stopped.wait(BEAT_SECONDS):
        try:
            with one_at_a_time(lease):
                lost = None if _is_ours(lease, holder) else "another process took it over"
                if lost is None:
                    touch(lease)
        except OSError as error:
            lost = str(error)
        if lost is not None:
            # Who cannot show that it is alive is taken for dead, and two would write one record.
            _log.error("%s: this process holds its lease no longer (%s) and ends.", lease.parent, lost)
            os.kill(os.getpid(), signal.SIGTERM)
            return


def _this_process() -> Holder:
    namespace = str(_PID_NAMESPACE.readlink()) if _PID_NAMESPACE.exists() else ""
    return Holder(id=uuid.uuid4().hex, host=platform.node(), namespace=namespace, pid=os.getpid())


def _has_ended(found: _Found) -> bool:
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


def _is_ours(lease: Path, holder: Holder) -> bool:
    found = _read(lease)
    return found is not None and found.holder == holder


def _read(lease: Path) -> _Found | None:
    """The lease as it is, None where there is none.

    Both halves come from one open file: a network's file system asks its server when a file is opened, and may not when it is
    looked at by name.
    """
    fetch(lease)
    if not lease.exists():
        return None
    with lease.open("rb") as file:
        content, beat = file.read(), os.fstat(file.fileno()).st_mtime_ns
    try:
        return _Found(Holder.model_validate_json(content), beat)
    except ValidationError:
        return _Found(None, beat)
