"""Folders in S3 against a real server."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from recsys.storage import s3
from recsys.storage.files import temporary_sibling, write_atomically
from recsys.storage.s3 import (
    fetch,
    fetch_folder,
    list_folder,
    open_folder,
    remove,
    remove_folder,
    restore_urls,
    upload,
    upload_folder,
    url_of,
)
from tests.s3_server import BUCKET, s3_here


@pytest.fixture(scope="module")
def _server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with s3_here(tmp_path_factory.mktemp("s3")):
        yield


@pytest.fixture
def place(_server: None, request: pytest.FixtureRequest) -> str:
    """A prefix of the test's own, of which each `open_folder` is another machine's copy."""
    return f"s3://{BUCKET}/deep/{request.node.name}"


def write(path: Path, text: str) -> None:
    with write_atomically(path) as temporary:
        temporary.write_text(text)


def test_what_one_machine_writes_another_one_reads(place: str) -> None:
    here, there = open_folder(place), open_folder(place + "/")
    assert here != there
    write(here / "a" / "file", "one")
    assert not (there / "a" / "file").exists()
    fetch(there / "a" / "file")
    assert (there / "a" / "file").read_text() == "one"
    write(there / "a" / "file", "two")
    fetch(here / "a" / "file")
    assert (here / "a" / "file").read_text() == "two"
    remove(there / "a" / "file")
    fetch(here / "a" / "file")
    assert not (here / "a" / "file").exists()
    assert [path.name for path in here.rglob("*")] == ["a"]


def test_a_folder_is_brought_as_it_is(place: str) -> None:
    here, there = open_folder(place), open_folder(place)
    for name in ("one", "trials/0/weights", "deep/two"):
        write(here / name, name)
    write(there / "gone", "here alone")
    remove(here / "gone")
    fetch_folder(there, exclude=("trials",))
    assert sorted(str(path.relative_to(there)) for path in there.rglob("*") if path.is_file()) == [
        "deep/two",
        "one",
    ]
    assert (there / "deep" / "two").read_text() == "deep/two"
    assert sorted(list_folder(there)) == ["deep", "one", "trials"]
    assert list_folder(there / "nothing") == []
    remove_folder(here / "trials")
    assert sorted(list_folder(there)) == ["deep", "one"]
    remove_folder(here / "trials")


def test_the_last_file_tells_that_a_folder_is_whole(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = open_folder(place)
    folder.mkdir(parents=True)
    for name in ("config", "manifest", "rows"):
        (folder / name).write_text("old")
    upload_folder(folder, last="manifest")
    assert sorted(list_folder(folder)) == ["config", "manifest", "rows"]
    published = []

    def fail_at_rows(path: Path) -> None:
        published.append(path.name)
        if path.name == "rows":
            raise OSError("made to fail")

    monkeypatch.setattr(s3, "upload", fail_at_rows)
    with pytest.raises(OSError, match="made to fail"):
        upload_folder(folder, last="manifest")
    assert "manifest" not in published
    assert sorted(list_folder(folder)) == ["config", "rows"]


def test_a_temporary_folder_leaves_nothing_in_s3(place: str) -> None:
    folder = open_folder(place)
    with temporary_sibling(folder / "work") as work:
        write(work / "part", "x")
        assert list_folder(work) == ["part"]
    assert list_folder(folder) == []
    assert not work.exists()


def test_a_path_tells_its_url(place: str) -> None:
    folder = open_folder(place)
    assert url_of(folder / "studies" / "s") == f"{place}/studies/s"
    assert (
        restore_urls(f"{folder}/a: must be, but got {folder}.")
        == f"{place}/a: must be, but got {place}."
    )
    assert folder.is_relative_to(tempfile.gettempdir())


def test_a_local_folder_is_left_alone(tmp_path: Path) -> None:
    assert open_folder(str(tmp_path)) == tmp_path
    assert url_of(tmp_path) is None
    (tmp_path / "file").write_text("x")
    for do in (fetch, upload, fetch_folder):
        do(tmp_path / "file")
    upload_folder(tmp_path, last="file")
    assert list_folder(tmp_path) == ["file"]
    remove(tmp_path / "file")
    assert list_folder(tmp_path) == []
    assert restore_urls(f"{tmp_path}/s3:/x") == f"{tmp_path}/s3:/x"


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        (
            "gs://bucket/x",
            "folder: must be a folder or s3://BUCKET/PREFIX, but got gs://bucket/x. ",
        ),
        ("s3://", "folder: must be a folder or s3://BUCKET/PREFIX, but got s3://. "),
        (
            "s3://id:secret@bucket/x",
            "folder: must be s3://BUCKET/PREFIX alone, but got credentials or settings in it. ",
        ),
        (
            "s3://no-such-bucket/x",
            "folder: must be in a bucket that can be reached, but got s3://no-such-bucket/x (there is no ",
        ),
    ],
)
@pytest.mark.usefixtures("_server")
def test_what_is_no_place(place: str, expected: str) -> None:
    with pytest.raises((ValueError, ConnectionError)) as raised:
        open_folder(place)
    assert str(raised.value).startswith(expected)
    assert "secret" not in str(raised.value)


def test_a_folder_in_s3_needs_boto3(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "find_spec", lambda _: None)
    with pytest.raises(
        ValueError,
        match=r"^folder: must be .* boto3 is not installed, but got s3://b/x\. Install the extra s3: ",
    ):
        open_folder("s3://b/x")
