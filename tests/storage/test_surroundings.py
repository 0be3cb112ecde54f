"""Places that cannot be used: the line names the place and the remedy."""

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from recsys import preprocess, train, tune
from recsys.cluster.connection import connect
from recsys.config.schema import Config
from recsys.storage.surroundings import refusal, require_writable
from tests.commands.in_process import run
from tests.small_search import ratings_csv

ROOT = Path(__file__).parents[2]


@contextmanager
def mounted(place: Path, options: str) -> Iterator[Path]:
    """A file system of its own at `place`, since root may write in any folder that has its mode alone against it."""
    place.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"a file system cannot be mounted here: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "read-only", "ro,size=1m") as place:
        yield place


@pytest.fixture
def ratings_here(tmp_path: Path) -> Path:
    (tmp_path / "ratings.csv").write_text(ratings_csv())
    (tmp_path / "space.yaml").write_text("parameters: {model.embedding_dim: {low: 4, high: 8}}")
    (tmp_path / "c.yaml").write_text("model: {name: gmf}")
    return tmp_path


@pytest.mark.parametrize("below", ["", "a/b"])
@pytest.mark.parametrize(
    ("main", "flags"),
    [
        (tune.main, ["--space", "space.yaml", "--name", "s"]),
        (train.main, ["--config", "c.yaml"]),
        (preprocess.main, []),
    ],
    ids=["tune", "train", "preprocess"],
)
def test_a_folder_that_cannot_be_written(
    ratings_here: Path,
    read_only: Path,
    monkeypatch: pytest.MonkeyPatch,
    main: object,
    flags: list[str],
    below: str,
) -> None:
    monkeypatch.chdir(ratings_here)
    assert callable(main)
    folder = read_only / below
    told = run(main, "--data", "ratings.csv", "--dir", folder, *flags)
    assert told == (
        2,
        "",
        f"error: --dir: must be a folder that can be written, but got {folder}, which cannot. Give another one.\n",
    )


def test_a_folder_that_can_be_made(tmp_path: Path) -> None:
    require_writable(tmp_path / "a" / "b")
    assert not (tmp_path / "a").exists()


def preprocessed(folder: Path, **places: str) -> tuple[int, list[str]]:
    """Exit code and standard error of a command that starts Ray, in a process of its own, with these places."""
    command = [sys.executable, "-m", "recsys.preprocess", "--data", "ratings.csv", "--dir", "exp"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), **places}
    done = subprocess.run(
        command, cwd=folder, env=env, capture_output=True, text=True, timeout=120, check=False
    )
    return done.returncode, done.stderr.splitlines()


def test_a_home_that_cannot_be_written(ratings_here: Path, read_only: Path) -> None:
    code, lines = preprocessed(ratings_here, HOME=str(read_only))
    expected = f"error: {read_only}/.ray: must be a place that can be written, but got Read-only file system. "
    assert (code, lines[-1:]) == (2, [f"{expected}Set HOME to a folder that can be written."])
    assert not any("Traceback" in line or "Interrupted" in line for line in lines)


def test_a_temporary_folder_whose_path_is_too_long(ratings_here: Path) -> None:
    long = ratings_here / ("x" * 90)
    code, lines = preprocessed(ratings_here, TMPDIR=str(long))
    assert code == 2
    assert lines[-1].startswith(
        "error: TMPDIR: must be a path short enough for Ray's sockets in it, which may have 107 bytes, but "
    )
    assert lines[-1].endswith(f"got {long}. Set TMPDIR=/tmp, or RAY_TMPDIR for Ray alone.")
    assert not any("Traceback" in line for line in lines)


def test_a_temporary_folder_that_is_full_or_cannot_be_written(
    tmp_path: Path, read_only: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    with mounted(tmp_path / "full", "size=64k") as full:
        for place, number in ((full, errno.ENOSPC), (read_only, errno.EROFS)):
            monkeypatch.setenv("TMPDIR", str(place))
            with pytest.raises(OSError, match=str(place)) as caught:
                connect(Config())
            assert caught.value.errno == number
            (line, _) = refusal(caught.value, tmp_path / "exp") or ("", 0)
            assert line.startswith(f"{place}: must ")


def raised(error: OSError, cause: BaseException | None = None) -> BaseException:
    try:
        raise error from cause
    except OSError as found:
        return found


def test_the_place_that_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, temporary = tmp_path / "exp", tmp_path / "tmp"
    monkeypatch.setenv("TMPDIR", str(temporary))
    no_room = (errno.ENOSPC, "No space left on device")

    def named(error: BaseException) -> str:
        (line, code) = refusal(error, folder) or ("", 0)
        assert code == 1
        return line.partition(": must have room to be written, but got ")[0]

    assert named(raised(OSError(*no_room, str(temporary / "x" / "y")))) == str(temporary)
    assert named(raised(OSError(*no_room, str(folder / "studies" / "s" / "x")))) == str(folder)
    assert named(raised(OSError(*no_room, "/elsewhere/x"))) == "/elsewhere/x"
    # What names no place is about the one with the least room.
    for full, other in ((folder, temporary), (temporary, folder)):
        other.mkdir(exist_ok=True)
        with mounted(full, "size=64k"):
            assert named(raised(OSError(*no_room))) == str(full)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_the_setting_that_a_closed_place_comes_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for place, remedy in {
        tmp_path / "x": "Set TMPDIR to a folder that can be written.",
        tmp_path / "home" / ".ray": "Set HOME to a folder that can be written.",
        tmp_path / "home" / "exp" / "studies": "Give another --dir, or see to its permissions.",
        Path("/elsewhere"): "See to its permissions.",
    }.items():
        told = refusal(raised(OSError(number, "Closed", str(place))), tmp_path / "home" / "exp")
        assert told == (
            f"{place}: must be a place that can be written, but got Closed. {remedy}",
            2,
        )


def test_other_errors_are_about_no_place() -> None:
    for error in (
        raised(FileNotFoundError(errno.ENOENT, "No such file", "x")),
        raised(PermissionError("no place")),
        ValueError(),
    ):
        assert refusal(error, None) is None
