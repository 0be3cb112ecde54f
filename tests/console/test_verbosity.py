"""Notes and progress of a command, with -v, with -q, and with or without a terminal."""

import os
import pty
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from recsys.console import verbosity
from recsys.console.verbosity import NORMAL, QUIET, VERBOSE, note, progress, set_verbosity

SCRIPT = """
import sys, time
from recsys.console.verbosity import note, progress, set_verbosity

set_verbosity(int(sys.argv[1]))
note("a note")
with progress("Training") as show:
    for epoch in (1, 2):
        show(f"epoch {epoch} of 2")
        print("a line between", file=sys.stderr)
print("the end", file=sys.stderr)
"""


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    yield
    set_verbosity(NORMAL)


@pytest.mark.parametrize(
    ("level", "shown"),
    [
        (QUIET, []),
        (NORMAL, ["a note"]),
        (VERBOSE, ["a note", "Training: epoch 1 of 2", "Training: epoch 2 of 2"]),
    ],
)
def test_without_a_terminal(
    level: int, shown: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    set_verbosity(level)
    note("a note")
    with progress("Training") as show:
        for epoch in (1, 2):
            show(f"epoch {epoch} of 2")
    assert capsys.readouterr() == ("", "".join(f"{line}\n" for line in shown))


def test_lines_keep_their_distance_and_the_last_one_is_shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    set_verbosity(VERBOSE)
    with progress("Reading", seconds=2.0) as show:
        for chunk in range(1, 8):
            show(f"chunk {chunk}")
            now[0] += 0.5
    # At 0, 2 and 3 seconds, where the work ends.
    assert capsys.readouterr().err.splitlines() == [
        f"Reading: chunk {chunk}" for chunk in (1, 5, 7)
    ]


def test_work_that_takes_long_has_a_line_every_half_minute(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    lines = verbosity._Lines("Reading", 2.0)
    shown = []
    for seconds, state in (
        (129.9, None),
        (130, None),
        (140, "chunk 1"),
        (159.9, None),
        (161, None),
    ):
        now[0] = seconds
        if state is not None:
            lines.hold(state)
        lines.repeat()
        shown.append(capsys.readouterr().err)
    assert shown == ["", "Reading (for 30 s)\n", "", "", "Reading: chunk 1 (for 61 s)\n"]
    now[0] = 170
    lines.show("chunk 2")  # with -v, a line that counts too
    now[0] = 199
    lines.repeat()
    assert capsys.readouterr().err == "Reading: chunk 2\n"


@pytest.mark.parametrize(
    ("level", "is_repeated"), [(NORMAL, True), (VERBOSE, True), (QUIET, False)]
)
def test_lines_are_repeated_while_the_work_blocks(
    level: int, is_repeated: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    repeated = threading.Event()
    monkeypatch.setattr(verbosity._Lines, "repeat", lambda _: repeated.set())
    set_verbosity(level)
    with progress("Scoring test"):
        assert repeated.wait(60 if is_repeated else 0) == is_repeated
    assert not any(thread.name == "progress" for thread in threading.enumerate())


@pytest.mark.parametrize("level", [QUIET, NORMAL])
def test_on_a_terminal(tmp_path: Path, level: int) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    ours, theirs = pty.openpty()
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "TERM": "xterm"}
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "script.py"), str(level)], stderr=theirs, env=env
    )
    os.close(theirs)
    output = b""
    while True:
        try:
            output += os.read(ours, 1 << 16)
        except OSError:  # the other end is closed
            break
    os.close(ours)
    assert process.wait() == 0
    text = output.decode()
    for line, is_shown in {
        "a note": level == NORMAL,
        "Training": level == NORMAL,
        "a line between": True,
        "the end": True,
    }.items():
        assert (line in text) == is_shown
    # The line of progress is erased at the end.
    assert "Training" not in re.split(r"\x1b\[2K", text)[-1]
