"""Folders in S3 against a real server."""

import tempfile
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


def write(path: Path, text: str) -> None:
    with write_atomically(path) as temporary:
        temporary.write_text(text)


def test_a_machine_reads_the_files_of_another(s3_place: str) -> None:
    first, second = open_folder(s3_place), open_folder(s3_place + "/")
    assert first != second
    write(first / "a" / "file", "one")
    assert not (second / "a" / "file").exists()
    fetch(second / "a" / "file")
    assert (second / "a" / "file").read_text() == "one"
    write(second / "a" / "file", "two")
    fetch(first / "a" / "file")
    assert (first / "a" / "file").read_text() == "two"
    remove(second / "a" / "file")
    fetch(first / "a" / "file")
    assert not (first / "a" / "file").exists()
    assert [path.name for path in first.rglob("*")] == ["a"]


def test_a_fetched_folder_equals_the_one_in_s3(s3_place: str) -> None:
    first, second = open_folder(s3_place), open_folder(s3_place)
    for name in ("one", "trials/0/weights", "deep/two"):
        write(first / name, name)
    write(second / "gone", "local only")
    remove(first / "gone")
    fetch_folder(second, exclude=("trials",))
    assert sorted(
        str(path.relative_to(second)) for path in second.rglob("*") if path.is_file()
    ) == [
        "deep/two",
        "one",
    ]
    assert (second / "deep" / "two").read_text() == "deep/two"
    assert sorted(list_folder(second)) == ["deep", "one", "trials"]
    assert list_folder(second / "nothing") == []
    remove_folder(first / "trials")
    assert sorted(list_folder(second)) == ["deep", "one"]
    remove_folder(first / "trials")


def test_the_last_file_is_uploaded_after_all_others(
    s3_place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = open_folder(s3_place)
    folder.mkdir(parents=True)
    for name in ("config", "manifest", "rows"):
        (folder / name).write_text("old")
    upload_folder(folder, last="manifest")
    assert sorted(list_folder(folder)) == ["config", "manifest", "rows"]
    uploaded = []

    def fail_at_rows(path: Path) -> None:
        uploaded.append(path.name)
        if path.name == "rows":
            raise OSError("made to fail")

    monkeypatch.setattr(s3, "upload", fail_at_rows)
    with pytest.raises(OSError, match="made to fail"):
        upload_folder(folder, last="manifest")
    assert "manifest" not in uploaded
    assert sorted(list_folder(folder)) == ["config", "rows"]


def test_a_temporary_folder_leaves_nothing_in_s3(s3_place: str) -> None:
    folder = open_folder(s3_place)
    with temporary_sibling(folder / "work") as work:
        write(work / "file", "x")
        assert list_folder(work) == ["file"]
    assert list_folder(folder) == []
    assert not work.exists()


def test_a_path_contains_its_url(s3_place: str) -> None:
    folder = open_folder(s3_place)
    assert url_of(folder / "studies" / "s") == f"{s3_place}/studies/s"
    assert (
        restore_urls(f"{folder}/a: must be, but got {folder}.")
        == f"{s3_place}/a: must be, but got {s3_place}."
    )
    assert folder.is_relative_to(tempfile.gettempdir())


def test_a_local_folder_is_neither_fetched_nor_uploaded(tmp_path: Path) -> None:
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
            "folder: must be in a bucket that can be reached, "
            "but got s3://no-such-bucket/x (there is no ",
        ),
    ],
)
@pytest.mark.usefixtures("s3_environment")
def test_other_urls_are_refused(place: str, expected: str) -> None:
    with pytest.raises((ValueError, ConnectionError)) as raised:
        open_folder(place)
    assert str(raised.value).startswith(expected)
    assert "secret" not in str(raised.value)


def test_a_folder_in_s3_needs_boto3(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "find_spec", lambda _: None)
    with pytest.raises(
        ValueError,
        match=r"^folder: must be .* boto3 is not installed, but got s3://b/x\. "
        r"Install the extra s3: ",
    ):
        open_folder("s3://b/x")


def test_a_temporary_folder_may_have_blanks(
    s3_place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a b").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "a b"))
    assert url_of(open_folder(s3_place)) == s3_place
