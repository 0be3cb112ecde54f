import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from recsys.errors import InputError
from recsys.search.record import lease
from recsys.search.record.lease_stores import Found, Holder, LeaseFile

HOLD = """
import sys, time
from recsys.storage.s3 import open_folder
from recsys.search.record import lease
with lease.hold(open_folder(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def other_process(folder: Path | str) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds a lease, of a folder or in S3, until its standard input closes."""
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def wait_for_renewals(folder: Path, n: int) -> None:
    """Read the lease until it was touched `n` times."""
    seen, deadline = set[int](), time.monotonic() + 60
    while len(seen) <= n:
        assert time.monotonic() < deadline
        seen.add((folder / "lease.json").stat().st_mtime_ns)
        time.sleep(0.005)


def write_foreign(folder: Path, time: int) -> None:
    """Write a lease of a process on another machine, touched at `time` (Unix seconds)."""
    holder = Holder(id="x", host="elsewhere", namespace="pid:[1]", pid=os.getpid())
    file = folder / "lease.json"
    file.write_text(holder.model_dump_json())
    os.utime(file, (time, time))


def test_a_second_driver_is_refused_while_the_first_one_runs(tmp_path: Path) -> None:
    with other_process(tmp_path) as process:
        message = (
            rf"{tmp_path}: must be searched by one process at a time, "
            rf"but got process {process.pid} on "
        )
        with pytest.raises(InputError, match=message), lease.hold(tmp_path):
            pytest.fail("held by two")
        assert process.stdin is not None
        process.stdin.close()
        process.wait()
        assert not (tmp_path / "lease.json").exists()


def test_the_lease_of_a_killed_process_is_taken_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "EXPIRY_SECONDS", 1e9)
    with other_process(tmp_path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        with lease.hold(tmp_path):
            assert json.loads((tmp_path / "lease.json").read_text())["pid"] == os.getpid()


def test_a_lease_of_another_machine_expires_when_it_is_not_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The bound on the wait of --resume, and several renewals of a slow holder.
    assert 4 * lease.RENEWAL_SECONDS < lease.EXPIRY_SECONDS + lease._POLL_SECONDS <= 30
    monkeypatch.setattr(lease, "EXPIRY_SECONDS", 0.6)
    write_foreign(tmp_path, time=7)
    with lease.hold(tmp_path):
        assert json.loads((tmp_path / "lease.json").read_text())["id"] != "x"


@pytest.mark.parametrize(
    "content",
    [b"", b'{"id": "x", "ho', b"[1]", b'{"id": "x", "host": "h", "namespace": "", "pid": -1}'],
)
def test_a_torn_lease_expires_when_it_is_not_touched(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "EXPIRY_SECONDS", 0.6)
    (tmp_path / "lease.json").write_bytes(content)
    with lease.hold(tmp_path):
        assert json.loads((tmp_path / "lease.json").read_text())["pid"] == os.getpid()


def test_a_lease_of_another_machine_that_is_touched_is_respected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_foreign(tmp_path, time=7)
    read, touched = LeaseFile.read, threading.Event()

    def read_and_touch(self: LeaseFile) -> Found | None:
        # The other machine touches it between two reads.
        found = read(self)
        write_foreign(tmp_path, time=8)
        touched.set()
        return found

    monkeypatch.setattr(LeaseFile, "read", read_and_touch)
    with pytest.raises(InputError, match="on elsewhere"), lease.hold(tmp_path):
        pytest.fail("held by two")
    assert touched.is_set()


def test_a_driver_that_lost_its_lease_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "RENEWAL_SECONDS", 0.01)
    ended = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: ended.set())
    try:
        with lease.hold(tmp_path) as is_lost:
            assert not is_lost.is_set()
            write_foreign(tmp_path, time=1)
            assert ended.wait(30)
            assert is_lost.is_set()
    finally:
        signal.signal(signal.SIGTERM, before)
    # The lease now belongs to the other driver, and is kept.
    assert json.loads((tmp_path / "lease.json").read_text())["id"] == "x"


def test_a_holder_touches_its_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "RENEWAL_SECONDS", 0.01)
    with lease.hold(tmp_path):
        wait_for_renewals(tmp_path, 2)


def test_a_holder_that_cannot_touch_its_lease_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "RENEWAL_SECONDS", 0.01)
    ended = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: ended.set())
    try:
        with lease.hold(tmp_path):
            held = (tmp_path / "lease.json").read_text()
            # A folder in the file's place cannot be read, not even by root.
            (tmp_path / "lease.json").unlink()
            (tmp_path / "lease.json").mkdir()
            assert ended.wait(30)
            (tmp_path / "lease.json").rmdir()
            (tmp_path / "lease.json").write_text(held)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert not (tmp_path / "lease.json").exists()


def test_a_holder_waits_for_a_silent_server_until_its_lease_has_expired(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "RENEWAL_SECONDS", 0.01)
    ended, renew, away = threading.Event(), LeaseFile.renew, [True] * 5
    answered = threading.Event()

    def renew_after_a_while(self: LeaseFile, holder: Holder) -> bool:
        if away:
            away.pop()
            raise ConnectionError("no answer")
        answered.set()
        return renew(self, holder)

    monkeypatch.setattr(LeaseFile, "renew", renew_after_a_while)
    before = signal.signal(signal.SIGTERM, lambda *_: ended.set())
    try:
        with lease.hold(tmp_path):
            assert answered.wait(30)
        assert not ended.is_set()
        monkeypatch.setattr(lease, "EXPIRY_SECONDS", 0.05)
        away.extend([True] * 1_000_000)
        with lease.hold(tmp_path):
            assert ended.wait(30)
    finally:
        signal.signal(signal.SIGTERM, before)
