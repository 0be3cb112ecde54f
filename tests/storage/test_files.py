import errno
import os
from pathlib import Path

import pytest
from safetensors import SafetensorError

from recsys.storage.files import disk_full_reason, write_atomically, write_folder


def interrupted_file(path: Path) -> None:
    with write_atomically(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt


def interrupted_folder(path: Path) -> None:
    with write_folder(path) as temporary:
        (temporary / "half").touch()
        raise KeyboardInterrupt


def test_a_file_is_whole_or_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    with write_atomically(path) as temporary:
        temporary.write_text("old")
        assert not path.exists()
    with pytest.raises(KeyboardInterrupt):
        interrupted_file(path)
    assert path.read_text() == "old"
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]


def test_a_file_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, synced = tmp_path / "file", []
    monkeypatch.setattr(
        "os.fsync", lambda number: synced.append((os.pread(number, 9, 0), path.exists()))
    )
    with write_atomically(path) as temporary:
        temporary.write_text("whole")
    assert synced == [(b"whole", False)]


def test_a_folder_is_whole_or_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    for content in ("old", "new"):
        with write_folder(path) as temporary:
            (temporary / content).touch()
    with pytest.raises(KeyboardInterrupt):
        interrupted_folder(path)
    assert [entry.name for entry in path.iterdir()] == ["new"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder"]


def chained(error: Exception) -> Exception:
    """An error of a library that came from another one, and tells nothing of it."""
    try:
        try:
            raise error
        except Exception as first:
            raise RuntimeError("during the commit") from first
    except RuntimeError as second:
        return second


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "file"),
            "[Errno 28] No space left on device: 'file'",
        ),
        (OSError(errno.EDQUOT, "Enough"), f"[Errno {errno.EDQUOT}] Enough"),
        (
            SafetensorError("I/O error: No space left on device (os error 28)"),
            "I/O error: No space left on device (os error 28)",
        ),
        (
            ValueError("of a session\n(sqlite3) database or disk is full\n[SQL"),
            "(sqlite3) database or disk is full",
        ),
        (OSError(errno.EIO, "Input/output error"), None),
        (ValueError("the room is full"), None),
    ],
)
def test_who_says_that_a_disk_is_full(error: Exception, expected: str | None) -> None:
    assert disk_full_reason(error) == expected
    assert disk_full_reason(chained(error)) == expected


def test_the_cause_says_it_and_not_what_repeats_it() -> None:
    told = ConnectionError("must be reachable, but got x (database or disk is full). Make room.")
    told.__cause__ = ValueError("(sqlite3) database or disk is full")
    assert disk_full_reason(told) == "(sqlite3) database or disk is full"
    assert disk_full_reason(ConnectionError(str(told))) == str(told)
