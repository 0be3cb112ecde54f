"""Messages about damaged records: one line that names the file."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from recsys import train, tune
from recsys.config.schema import Config
from recsys.search.record.origin import StudyOrigin
from recsys.search.record.study_folder import StudyFolder
from recsys.search.space.space_file import parse_space
from tests.commands.in_process import run

SPACE = parse_space({"parameters": {"model.embedding_dim": {"low": 8, "high": 64}}}, "")
PAGE = 4096


def make_record(folder: Path, *, is_journal: bool = False) -> Path:
    """Create a record with some trials, and return its file."""
    with pytest.MonkeyPatch.context() as patch:
        if is_journal:
            patch.setattr(
                "recsys.search.record.optuna_storage.network_file_system", lambda _: "nfs"
            )
        StudyFolder(folder).create(Config(), SPACE, StudyOrigin())
    record, _ = StudyFolder(folder).read()
    for _ in range(40):
        number, _ = record.ask()
        record.report(number, 1, 0.5, {"train_loss": 1.0})
        record.finish(number, "complete")
    return folder / ("optuna.jsonl" if is_journal else "optuna.db")


def overwrite(content: bytes, page: int) -> bytes:
    return (
        content[: page * PAGE] + random.Random(page).randbytes(PAGE) + content[(page + 1) * PAGE :]
    )


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "text": lambda _: b"no database",
    "zeros": lambda content: bytes(len(content)),
    "half of it": lambda content: content[: len(content) // 2],
    "the first page": lambda content: overwrite(content, 0),
    "a page in the middle": lambda content: overwrite(content, len(content) // PAGE // 2),
    "the last page": lambda content: overwrite(content, len(content) // PAGE - 1),
    "empty": lambda _: b"",
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the study `s`."""
    folder = tmp_path_factory.mktemp("whole")
    make_record(folder / "studies" / "s")
    return folder


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_database(whole: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    file = tmp_path / "studies" / "s" / "optuna.db"
    file.write_bytes(DAMAGE[name](file.read_bytes()))
    reason = "must be a whole SQLite database, but it is damaged ("
    reason = "must have the record of a study, but is empty. " if name == "empty" else reason
    asked = [(tune.main, ["--name", "s", "--resume"]), (train.main, ["--best-of", "s"])]
    for main, flags in asked:
        code, out, err = run(main, "--dir", tmp_path, *flags)
        assert (code, out) == (2, "")
        assert err.startswith(f"error: {file}: {reason}")
        assert err.endswith("hoose another study name.\n")
        assert err.count("\n") == 1


@pytest.mark.parametrize("damage", [b"no line of a journal\n", b"[]\n", b"\xff\xfe\n", b"{}\n"])
def test_a_damaged_journal(tmp_path: Path, damage: bytes) -> None:
    file = make_record(tmp_path / "studies" / "s", is_journal=True)
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([*lines[:9], damage, *lines[10:]]))
    code, out, err = run(tune.main, "--name", "s", "--resume", "--dir", tmp_path)
    assert (code, out) == (2, "")
    assert err.startswith(
        f"error: {file}: must be a whole journal of Optuna's, but it is damaged ("
    )
    assert err.count("\n") == 1


def test_a_whole_record_is_read(whole: Path) -> None:
    assert len(StudyFolder(whole / "studies" / "s").optuna_study().trials) == 40
