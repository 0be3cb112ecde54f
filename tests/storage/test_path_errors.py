"""A full disk and missing permissions: one line names the path and the remedy."""

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors import SafetensorError

from recsys import preprocess, recommend, train, tune
from recsys.cluster.connection import connect
from recsys.command_line.run import print_error
from recsys.config.schema import Config
from recsys.storage.path_errors import disk_full_reason, permission_error, require_writable
from tests.commands.in_process import run
from tests.mounts import mounted
from tests.small_search import ratings_csv

ROOT = Path(__file__).parents[2]


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
    result = run(main, "--data", "ratings.csv", "--dir", folder, *flags)
    assert result == (
        2,
        "",
        f"error: --dir: must be a folder that can be written, but got {folder}, which cannot. "
        "Give another one.\n",
    )


def test_an_output_that_cannot_be_written_is_refused_before_the_work(
    ratings_here: Path, read_only: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ratings_here)
    rule = "must be a folder that can be written, but got"
    out = read_only / "m"
    assert run(train.main, "--config", "c.yaml", "--data", "ratings.csv", "--out", out) == (
        2,
        "",
        f"error: --out: {rule} {out}, which cannot. Give another one.\n",
    )
    output = read_only / "x.parquet"
    assert run(recommend.main, "--model", "m", "--all-users", "--output", output) == (
        2,
        "",
        f"error: --output: {rule} {read_only}, which cannot. Give another one.\n",
    )


def test_a_folder_that_can_be_made(tmp_path: Path) -> None:
    require_writable(tmp_path / "a" / "b")
    assert not (tmp_path / "a").exists()


def preprocessed(folder: Path, **variables: str) -> tuple[int, list[str]]:
    """Return the exit code and standard error of a command that starts Ray."""
    command = [sys.executable, "-m", "recsys.preprocess", "--data", "ratings.csv", "--dir", "exp"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    done = subprocess.run(
        command, cwd=folder, env=env, capture_output=True, text=True, timeout=120, check=False
    )
    return done.returncode, done.stderr.splitlines()


def test_a_home_that_cannot_be_written(ratings_here: Path, read_only: Path) -> None:
    code, lines = preprocessed(ratings_here, HOME=str(read_only))
    expected = f"error: {read_only}/.ray: must be accessible, but got Read-only file system. "
    assert (code, lines[-1:]) == (2, [f"{expected}Set HOME to a folder that can be written."])
    assert not any("Traceback" in line or "Interrupted" in line for line in lines)


def test_a_temporary_folder_whose_path_is_too_long(ratings_here: Path) -> None:
    long = ratings_here / ("x" * 90)
    code, lines = preprocessed(ratings_here, TMPDIR=str(long))
    assert code == 2
    assert lines[-1].startswith(
        "error: TMPDIR: must be a path short enough for Ray's sockets in it, "
        "which may have 107 bytes, but "
    )
    assert lines[-1].endswith(f"got {long}. Set TMPDIR=/tmp, or RAY_TMPDIR for Ray alone.")
    assert not any("Traceback" in line for line in lines)


def test_a_temporary_folder_that_is_full_or_cannot_be_written(
    tmp_path: Path,
    read_only: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    with mounted(tmp_path / "full", "size=64k") as full:
        for folder, number, code in ((full, errno.ENOSPC, 1), (read_only, errno.EROFS, 2)):
            monkeypatch.setenv("TMPDIR", str(folder))
            with pytest.raises(OSError, match=str(folder)) as caught:
                connect(Config())
            assert caught.value.errno == number
            assert print_error(caught.value, {"--dir": tmp_path / "exp"}) == code
            assert capsys.readouterr().err.startswith(f"error: {folder}: must ")


def test_the_folder_that_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, temporary = tmp_path / "exp", tmp_path / "tmp"
    monkeypatch.setenv("TMPDIR", str(temporary))
    full_disk = (errno.ENOSPC, "No space left on device")

    def named(error: OSError) -> str:
        assert print_error(error, {"--dir": folder}) == 1
        line = capsys.readouterr().err
        return line.partition(": must have room to be written, but got ")[0]

    assert named(OSError(*full_disk, str(temporary / "x" / "y"))) == f"error: {temporary}"
    assert named(OSError(*full_disk, str(folder / "studies" / "s" / "x"))) == f"error: {folder}"
    assert named(OSError(*full_disk, "/elsewhere/x")) == "error: /elsewhere/x"
    # An error without a path is about the folder with the least room.
    for full, other in ((folder, temporary), (temporary, folder)):
        other.mkdir(exist_ok=True)
        with mounted(full, "size=64k"):
            assert named(OSError(*full_disk)) == f"error: {full}"


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_the_remedy_names_the_setting_that_chose_a_denied_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for path, remedy in {
        tmp_path / "x": "Set TMPDIR to a folder that can be written.",
        tmp_path / "home" / ".ray": "Set HOME to a folder that can be written.",
        tmp_path / "home" / "exp" / "studies": "Give another --dir, or change its permissions.",
        tmp_path / "home" / "exp" / "m": "Give another --out, or change its permissions.",
    }.items():
        error = RuntimeError("a worker failed")
        error.__cause__ = OSError(number, "Denied", str(path))
        exp = tmp_path / "home" / "exp"
        for found in (error, error.__cause__):
            assert print_error(found, {"--dir": exp, "--out": exp / "m"}) == 2
            assert capsys.readouterr().err == (
                f"error: {path}: must be accessible, but got Denied. {remedy}\n"
            )


def test_a_denied_path_is_a_mistake_of_the_user(capsys: pytest.CaptureFixture[str]) -> None:
    error = OSError(errno.EACCES, "Permission denied", "/x")
    assert permission_error(error, {"--dir": Path("/x")}) is not None
    assert print_error(error, {"--dir": Path("/x")}, with_traceback=True) == 2
    first, *_, last = capsys.readouterr().err.splitlines()
    assert first.startswith("PermissionError: ")
    assert last == (
        "error: /x: must be accessible, but got Permission denied. "
        "Give another --dir, or change its permissions."
    )


def test_a_denied_path_that_no_setting_chose_is_a_bug(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", "/home/x")
    error = OSError(errno.EACCES, "Permission denied", "/x")
    assert print_error(error, {"--dir": Path("/y")}) == 1
    assert capsys.readouterr().err.startswith("PermissionError: ")


def test_other_errors_are_not_about_a_path() -> None:
    bug = KeyError("raised while a PermissionError was handled")
    bug.__context__ = PermissionError(errno.EACCES, "Permission denied", "/x")
    for error in (
        FileNotFoundError(errno.ENOENT, "No such file", "x"),
        PermissionError("no path"),
        ValueError(),
        bug,
    ):
        assert permission_error(error, {}) is None
        assert disk_full_reason(error) is None


def chained(error: Exception) -> Exception:
    """An error of a library that does not repeat the message of its cause."""
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
def test_errors_about_a_full_disk(error: Exception, expected: str | None) -> None:
    assert disk_full_reason(error) == expected
    assert disk_full_reason(chained(error)) == expected


def test_the_message_of_the_first_cause_is_taken() -> None:
    error = ConnectionError("must be reachable, but got x (database or disk is full). Make room.")
    error.__cause__ = ValueError("(sqlite3) database or disk is full")
    assert disk_full_reason(error) == "(sqlite3) database or disk is full"
    assert disk_full_reason(ConnectionError(str(error))) == str(error)
