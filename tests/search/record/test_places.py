"""The storage of a study's record on a disk and on a network file system."""

from pathlib import Path

import pytest

from recsys import tune
from recsys.cluster.shared_paths import require_on_this_node
from recsys.config.files import dump_yaml
from recsys.config.schema import Config, replace_values
from recsys.errors import InputError
from recsys.search.record.journal import repair_journal
from recsys.search.record.optuna_storage import JOURNAL, SQLITE, storage_file
from recsys.search.record.origin import StudyOrigin
from recsys.search.record.study_folder import StudyFolder, create_optuna_study
from recsys.search.space.space_file import parse_space
from recsys.storage import files
from recsys.storage.files import network_file_system
from tests.commands.in_process import answer, run
from tests.small_search import SPACE

SEARCH_SPACE = parse_space(SPACE, "space.yaml")
NFS_MOUNTS = """\
24 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
25 24 0:40 / {folder} rw,relatime shared:20 master:2 - nfs4 server:/export rw,vers=4.2
26 25 0:41 / {folder}/local rw - tmpfs tmpfs rw
27 24 0:42 / /sshfs\\040of\\040mine rw - fuse.sshfs me@server: rw
28 24 0:43 / /données/漢 rw - nfs4 server:/other rw
"""


@pytest.fixture
def nfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is NFS according to the table of mounts."""
    folder = tmp_path / "shared"
    folder.mkdir()
    (tmp_path / "mounts").write_text(NFS_MOUNTS.format(folder=folder))
    monkeypatch.setattr(files, "_MOUNTS", tmp_path / "mounts")
    return folder


def test_network_file_systems(nfs: Path) -> None:
    expected = {
        "": "nfs4",
        "deep/in/it": "nfs4",
        "local": None,
        "local/x": None,
        "..": None,
        "../sharedness": None,
    }
    assert {name: network_file_system(nfs / name) for name in expected} == expected
    assert network_file_system(Path("/sshfs of mine/x")) == "fuse.sshfs"
    assert network_file_system(Path("/données/漢/x")) == "nfs4"
    assert network_file_system(Path("/données")) is None
    (nfs.parent / "link").symlink_to(nfs)
    assert network_file_system(nfs.parent / "link" / "x") == "nfs4"


def test_this_disk_is_none(tmp_path: Path) -> None:
    assert network_file_system(tmp_path) is None


def test_a_search_on_nfs(ray_here: None, ratings: Path, nfs: Path, tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(dump_yaml(SPACE))
    flags = ["--dir", nfs, "--name", "s", "--max-epochs", 1, "--set", "training.batch_size=512"]
    search = [*flags, "--space", tmp_path / "space.yaml", "--data", ratings, "--trials", 1]
    code, _, errors = run(tune.main, *search)
    assert code == 2
    assert errors == (
        f"error: tracking.uri: must be a server or a database where {nfs} is on a network file "
        "system (nfs4), since SQLite cannot be used there, but got nothing. "
        "Give http://HOST:PORT or postgresql://USER@HOST/NAME, or set tracking.required=false.\n"
    )
    tracking = ["--set", f"tracking.uri=sqlite:///{tmp_path / 'runs.db'}"]
    assert answer(tune.main, *search, *tracking)["counts"]["complete"] == 1
    again = answer(tune.main, *flags, *tracking, "--resume", "--trials", 2)
    assert [trial["id"] for trial in again["trials"]] == ["0", "1"]
    study = nfs / "studies" / "s"
    assert storage_file(study) == JOURNAL
    assert [path.name for path in nfs.rglob("*.db*")] == []
    assert [trial.number for trial in StudyFolder(study).optuna_study().trials] == [0, 1]


def test_sqlite_is_not_written_on_nfs(nfs: Path, tmp_path: Path) -> None:
    create_optuna_study(tmp_path, Config(), StudyOrigin())
    (tmp_path / SQLITE).rename(nfs / SQLITE)
    with pytest.raises(
        ValueError,
        match=rf"{SQLITE}: must be on a disk of this machine to be written, but got .* \(nfs4\)\. ",
    ):
        StudyFolder(nfs).resume(Config(), SEARCH_SPACE)


def test_a_journal_is_repaired_after_a_kill(nfs: Path) -> None:
    study = create_optuna_study(nfs, Config(), StudyOrigin())
    study.enqueue_trial({"x": 1})
    whole = (nfs / JOURNAL).read_bytes()
    (nfs / JOURNAL).write_bytes(whole + b'{"op_code":4,"worker')
    (nfs / f"{JOURNAL}.lock").symlink_to(nfs / JOURNAL)
    # It does not disturb a reader, and a resumed study waits for no lock.
    assert len(StudyFolder(nfs).optuna_study().trials) == 1
    repair_journal(nfs / JOURNAL)
    assert (nfs / JOURNAL).read_bytes() == whole
    record = StudyFolder(nfs).resume(Config(), SEARCH_SPACE)
    record.enqueue_first_points()
    assert len(StudyFolder(nfs).optuna_study().trials) == 3


@pytest.mark.parametrize("url", ["sqlite:////tmp/x.db", "postgres", "http://user:secret@host/x"])
def test_a_storage_must_be_a_database_for_many_machines(url: str) -> None:
    with pytest.raises(ValueError, match=r"study\.storage") as raised:
        replace_values(Config(), {"study.storage": url})
    rule = raised.value.errors()[0]["ctx"]["error"]  # type: ignore[attr-defined]
    assert str(rule).startswith("must begin with postgresql:// or mysql://, but got ")
    assert "secret" not in str(rule)


def test_a_worker_must_see_the_folder_of_the_driver(tmp_path: Path) -> None:
    require_on_this_node(tmp_path)
    require_on_this_node(Path("/tmp/recsys-x/s3:/bucket/prefix"))
    with pytest.raises(
        InputError,
        match=rf"folder: must be a folder that all nodes see, but got {tmp_path}/x, which is ",
    ):
        require_on_this_node(tmp_path / "x")
