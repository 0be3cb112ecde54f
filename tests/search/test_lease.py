import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from recsys.search import lease

HOLD = """
import sys, time
from pathlib import Path
from recsys.search import lease
with lease.hold(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def other_process(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lease until its standard input closes."""
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def write_foreign(folder: Path, beat: int) -> None:
    """A lease of a process on another machine."""
    content = {"id": "x", "host": "elsewhere", "namespace": "pid:[1]", "pid": os.getpid(), "beat": beat}
    lease._write(folder / "lease.json", content)


def test_a_second_driver_is_refused_while_the_first_one_runs(tmp_path: Path) -> None:
    with other_process(tmp_path) as process:
        message = rf"{tmp_path}: must be searched by one process at a time, but got .* process {process.pid} on "
        with pytest.raises(BlockingIOError, match=message), lease.hold(tmp_path):
            pytest.fail("held by two")
        assert process.stdin is not None
        process.stdin.close()
        process.wait()
        assert not (tmp_path / "lease.json").exists()


def test_the_lease_of_a_killed_process_is_taken_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "EXPIRY_SECONDS", 1e9)
    with other_process(tmp_path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        with lease.hold(tmp_path):
            assert json.loads((tmp_path / "lease.json").read_text())["pid"] == os.getpid()


def test_a_lease_from_elsewhere_expires_when_it_stands_still(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What --resume waits for at most, and several beats of a holder that is slow.
    assert 4 * lease.BEAT_SECONDS < lease.EXPIRY_SECONDS + lease._POLL_SECONDS <= 30
    monkeypatch.setattr(lease, "EXPIRY_SECONDS", 0.6)
    write_foreign(tmp_path, beat=7)
    with lease.hold(tmp_path):
        assert json.loads((tmp_path / "lease.json").read_text())["id"] != "x"


def test_a_lease_from_elsewhere_that_counts_is_respected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_foreign(tmp_path, beat=7)
    read, counted = lease._read, threading.Event()

    def read_and_count(path: Path) -> object:
        # The other machine counts up between two looks.
        found = read(path)
        write_foreign(tmp_path, beat=8)
        counted.set()
        return found

    monkeypatch.setattr(lease, "_read", read_and_count)
    with pytest.raises(BlockingIOError, match="on elsewhere"), lease.hold(tmp_path):
        pytest.fail("held by two")
    assert counted.is_set()


def test_who_has_lost_the_lease_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.01)
    ended = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: ended.set())
    try:
        with lease.hold(tmp_path):
            write_foreign(tmp_path, beat=1)
            assert ended.wait(30)
    finally:
        signal.signal(signal.SIGTERM, before)
    # It is another's now, and stays.
    assert json.loads((tmp_path / "lease.json").read_text())["id"] == "x"
