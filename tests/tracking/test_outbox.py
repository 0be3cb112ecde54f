import json
import logging
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from recsys.tracking import outbox
from recsys.tracking.outbox import Outbox, StartOver
from recsys.tracking.outbox_file import Entry, Note, Operation, read_outbox

WAIT = 30.0


class Receiver:
    """Receiver of operations, unless it is away; its notes have an id."""

    def __init__(self) -> None:
        self.got: list[tuple[object, bool]] = []
        self.away = threading.Event()
        self.tried = threading.Semaphore(0)

    def send(self, operation: Operation, resent: bool) -> Note:
        self.tried.release()
        if self.away.is_set():
            raise ConnectionError("gone fishing")
        self.got.append((operation["n"], resent))
        return {"id": f"i{operation['n']}"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox.jsonl"


def open_outbox(path: Path, send: Callable[[Operation, bool], Note]) -> Outbox:
    return Outbox(path, read_outbox(path), send, "http://here")


def lines(path: Path) -> list[object]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_operations_are_sent_in_order_and_noted(path: Path) -> None:
    receiver = Receiver()
    box = open_outbox(path, receiver.send)
    box.append({"n": 1}, {"n": 2})
    box.append({"n": 3})
    assert box.flush()
    assert receiver.got == [(1, False), (2, False), (3, False)]
    assert read_outbox(path) == [
        Entry({"n": n}, {"sent": n, "id": f"i{n}"}, True) for n in (1, 2, 3)
    ]
    box.close()
    # Opened again, it has nothing to send, and the count continues.
    again = open_outbox(path, receiver.send)
    again.append({"n": 4})
    again.close()
    assert receiver.got[3:] == [(4, False)]
    assert lines(path)[-1] == {"sent": 4, "id": "i4"}


def test_the_next_process_sends_what_is_kept(
    path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "PATIENCE_SECONDS", 0.3)
    receiver = Receiver()
    receiver.away.set()
    first = open_outbox(path, receiver.send)
    for n in (1, 2):
        first.append({"n": n})
    with caplog.at_level(logging.WARNING, "recsys"):
        assert not first.flush()
        first.close()
    assert [record.getMessage() for record in caplog.records] == [
        "MLflow at http://here does not answer (gone fishing): the search continues, and "
        f"{path} keeps the unsent operations.",
        f"MLflow at http://here does not answer: 2 operations are kept in {path}; "
        "resuming the study sends them.",
    ]
    assert str(first.connection_error) == "gone fishing"
    assert lines(path) == [{"n": 1}, {"n": 2}]
    available = Receiver()
    second = open_outbox(path, available.send)
    second.append({"n": 3})
    second.close()
    # Kept operations may have been sent before, with their answers lost.
    assert available.got == [(1, True), (2, True), (3, False)]
    assert second.connection_error is None


def test_a_receiver_that_lost_operations(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    receiver = Receiver()
    first = open_outbox(path, receiver.send)
    first.append({"n": 1}, {"n": 2})
    first.close()
    lost = [True]

    def send(operation: Operation, resent: bool) -> Note:
        if lost.pop() if lost else False:
            raise StartOver
        return receiver.send(operation, resent)

    with caplog.at_level(logging.WARNING, "recsys"):
        second = open_outbox(path, send)
        second.append({"n": 3})
        second.append({"n": 4})
        second.close()
    assert [record.getMessage() for record in caplog.records] == [
        f"MLflow at http://here lacks runs of this study: they are created again from {path}."
    ]
    assert sorted(receiver.got[2:]) == [(1, True), (2, True), (3, True), (4, True)]
    assert second.n_kept == 4
    assert [entry.sent for entry in read_outbox(path)] == [True] * 4


def test_the_file_of_operations_that_are_sent_again(path: Path) -> None:
    notes: list[Note] = [
        {"sent": 1, "id": "a"},
        {"sent": 2, "id": "b"},
        {"sent": 0},
        {"sent": 1, "id": "c"},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in [{"n": 1}, {"n": 2}, *notes]))
    assert read_outbox(path) == [Entry({"n": 1}, notes[3], True), Entry({"n": 2}, notes[1], False)]


def test_it_retries_by_itself(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(outbox, "_FIRST_DELAY", 0.01)
    receiver = Receiver()
    receiver.away.set()
    box = open_outbox(path, receiver.send)
    with caplog.at_level(logging.WARNING, "recsys"):
        box.append({"n": 1})
        for _ in range(3):
            assert receiver.tried.acquire(timeout=WAIT)
        receiver.away.clear()
        assert box.flush()
    assert len(caplog.records) == 1
    # The attempt that succeeded was not the first.
    assert receiver.got == [(1, True)]


def test_no_call_waits_for_a_receiver_that_hangs(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "PATIENCE_SECONDS", 0.1)
    began, released = threading.Event(), threading.Event()

    def hang(_operation: Operation, _resent: bool) -> Note:
        began.set()
        assert released.wait(WAIT)
        return {}

    box = open_outbox(path, hang)
    box.append({"n": 1})
    assert began.wait(WAIT)
    box.append({"n": 2})
    assert not box.flush()
    box.close()
    assert lines(path) == [{"n": 1}, {"n": 2}]
    released.set()


def test_flush_waits_for_a_slow_receiver(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "PATIENCE_SECONDS", 1.0)

    def slow(_operation: Operation, _resent: bool) -> Note:
        threading.Event().wait(0.2)
        return {}

    box = open_outbox(path, slow)
    box.append(*({"n": n} for n in range(8)))
    # 1.6 s in all: more than its patience, which starts again with each answer.
    assert box.flush()
    box.append(*({"n": n} for n in range(8)))
    assert not box.flush(limit=0.3)


def test_a_torn_last_line_is_cut(path: Path) -> None:
    path.write_text('{"n": 1}\n{"n": 2}\n{"sent": 1, "id": "i1"}\n{"n": 3, "te')
    assert read_outbox(path) == [
        Entry({"n": 1}, {"sent": 1, "id": "i1"}, True),
        Entry({"n": 2}, None, False),
    ]
    receiver = Receiver()
    box = open_outbox(path, receiver.send)
    box.append({"n": 3})
    box.close()
    assert receiver.got == [(2, True), (3, False)]
    assert [entry.note for entry in read_outbox(path)] == [
        {"sent": n, "id": f"i{n}"} for n in (1, 2, 3)
    ]


def test_a_damaged_line_is_a_mistake(path: Path) -> None:
    path.write_text('{"n": 1}\nhello\n{"n": 2}\n')
    with pytest.raises(
        ValueError,
        match=r"outbox\.jsonl, line 2: must be a JSON object, but got b'hello'\. Correct the line",
    ):
        read_outbox(path)


def test_an_error_in_sending_is_raised_in_the_search(path: Path) -> None:
    box = open_outbox(path, Receiver().send)
    box.append({"m": 1})
    with pytest.raises(RuntimeError, match="sending to MLflow ended with an error") as raised:
        box.flush()
    assert isinstance(raised.value.__cause__, KeyError)
    with pytest.raises(RuntimeError, match="ended with an error"):
        box.append({"n": 2})


FULL_DISK = """
import resource, sys
from pathlib import Path
from recsys.tracking.outbox import Outbox
from recsys.tracking.outbox_file import read_outbox

def send(operation, resent):
    raise ConnectionError("away")

path = Path(sys.argv[1])
box = Outbox(path, read_outbox(path), send, "there")
box.append({"n": 1})
for limit in (20, 9):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        box.append({"n": 2, "text": "x" * 100})
    except OSError as error:
        print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
box.append({"n": 3})
"""


def test_a_full_disk_leaves_no_torn_line(path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(path)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    message = (
        f"{path}: must be written whole, but got No space left on device. Make room on its disk."
    )
    assert ran.stdout.splitlines() == [
        message,
        message.replace("No space left on device", "File too large"),
    ]
    assert lines(path) == [{"n": 1}, {"n": 3}]
