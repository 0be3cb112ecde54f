import os
from pathlib import Path

import pytest

from recsys.storage.files import write_atomically, write_folder


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
