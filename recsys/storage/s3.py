"""Folders in S3, each behind a local copy that the rest of recsys works on.

The ground floor, below `storage`. `--dir s3://bucket/prefix` becomes a folder of this process's own, such as
`/tmp/recsys-x1y2/s3:/bucket/prefix`. A path below it tells its URL in any process and on any node, so that tasks and trials
elsewhere use the same paths. What lies in S3 counts: it is fetched before it is read, and put there once it is written. Of any
other path, which is a local one, there is nothing to fetch and nothing to upload.
"""

import atexit
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from recsys.errors import InputError

_COPY = re.compile(r"[^\s\"']*/recsys-[^\s/\"']+/s3:/")
"""Where a local copy begins."""
_ATTEMPTS = 8
"""Of each request to S3, with growing pauses."""
_AT_A_TIME = 8
"""Files that are on their way at a time."""


def open_folder(place: str) -> Path:
    """The folder that a `--dir` means: a local path itself, or the local copy, empty as yet, of one in S3.

    Raises:
        InputError: if it is another kind of URL, holds credentials, or lies in S3 and boto3 is not installed; if there is no such
            bucket, or S3 cannot be reached.
    """
    scheme, found, rest = place.partition("://")
    if not found:
        return Path(place)
    rest = rest.strip("/")
    if scheme != "s3" or not rest:
        raise InputError(
            "folder", "must be a folder or s3://BUCKET/PREFIX", place, "Give one of the two."
        )
    if "@" in rest or "?" in rest:
        raise InputError(
            "folder",
            "must be s3://BUCKET/PREFIX alone",
            "credentials or settings in it",
            "Put them into the environment: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL.",
        )
    if find_spec("boto3") is None:
        raise InputError(
            "folder",
            "must be a folder on a disk where boto3 is not installed",
            place,
            "Install the extra s3: pip install -c constraints.txt -e '.[s3]'.",
        )
    _require_bucket(place, rest.partition("/")[0])
    copy = Path(tempfile.mkdtemp(prefix="recsys-"))
    atexit.register(shutil.rmtree, copy, ignore_errors=True)
    return copy / "s3:" / rest


def url_of(path: Path) -> str | None:
    """The URL that a path stands for, None for a local one."""
    key = _key(path)
    return None if key is None else f"s3://{key}"


def restore_urls(text: str) -> str:
    """The text with the URLs in it that local copies stand for."""
    return _COPY.sub("s3://", text)


def list_folder(folder: Path) -> list[str]:
    """The names of what lies in a folder, none where there is no folder."""
    if (key := _key(folder)) is None:
        return [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    return [info.base_name for info in _listed(key, recursive=False)]


def fetch(path: Path) -> None:
    """Bring a file here from S3, with the time of its change there. Where S3 has none, there is none here afterwards."""
    if (key := _key(path)) is None:
        return
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        _copy(key, partial, arriving=True)
        changed = _store(key).get_file_info(key).mtime_ns
        if changed is not None:
            os.utime(partial, ns=(changed, changed))
        partial.replace(path)
    except FileNotFoundError:
        path.unlink(missing_ok=True)
    finally:
        partial.unlink(missing_ok=True)


def fetch_folder(folder: Path, exclude: Collection[str] = ()) -> None:
    """Bring a folder here from S3, but for what lies in it under the names `exclude`; what S3 has not goes from here."""
    if (key := _key(folder)) is None:
        return
    there = {
        info.path.removeprefix(f"{key}/") for info in _listed(key, recursive=True) if info.is_file
    }
    here = {str(path.relative_to(folder)) for path in folder.rglob("[!.]*") if path.is_file()}
    for name in here - there:
        (folder / name).unlink(missing_ok=True)
    wanted = [folder / name for name in sorted(there) if name.partition("/")[0] not in exclude]
    with ThreadPoolExecutor(_AT_A_TIME) as transfers:
        list(transfers.map(fetch, wanted))


def upload(path: Path, content: Path | None = None) -> None:
    """Put a file into S3, whole, in the place of one that is there: its own content, or that of another file."""
    if (key := _key(path)) is not None:
        _copy(key, content or path, arriving=False)


def upload_folder(folder: Path, last: str) -> None:
    """Put a folder's files into S3, the file `last` when all others are there: it tells that the folder is whole."""
    if _key(folder) is None:
        return
    _delete(folder / last)
    files = [path for path in folder.rglob("[!.]*") if path.is_file() and path != folder / last]
    with ThreadPoolExecutor(_AT_A_TIME) as transfers:
        list(transfers.map(upload, files))
    upload(folder / last)


def delete_local_copy(path: Path) -> None:
    """Delete the local copy of a file or folder in S3; a local path is left as it is."""
    if url_of(path) is None:
        return
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def remove(path: Path) -> None:
    """Delete a file, here and in S3, if it is there."""
    path.unlink(missing_ok=True)
    _delete(path)


def remove_folder(folder: Path) -> None:
    """Delete a folder with all that is in it, here and in S3, if it is there."""
    shutil.rmtree(folder, ignore_errors=True)
    if (key := _key(folder)) is not None and _listed(key, recursive=False):
        _store(key).delete_dir(key)


def move_in_s3(path: Path, target: Path) -> None:
    """Rename a file in S3, if it is there, in the place of another one."""
    if (key := _key(path)) is not None and path.name in list_folder(path.parent):
        _store(key).move(key, _key(target))


def _key(path: Path) -> str | None:
    """Bucket and key, None for a local path."""
    found = _COPY.match(str(path))
    return None if found is None else str(path)[found.end() :]


def _delete(path: Path) -> None:
    if (key := _key(path)) is not None and path.name in list_folder(path.parent):
        _store(key).delete_file(key)


def _copy(key: str, path: Path, *, arriving: bool) -> None:
    from pyarrow.fs import LocalFileSystem, copy_files

    store, local = _store(key), LocalFileSystem()
    if arriving:
        copy_files(key, str(path), source_filesystem=store, destination_filesystem=local)
    else:
        copy_files(str(path), key, source_filesystem=local, destination_filesystem=store)


def _listed(key: str, *, recursive: bool) -> list[Any]:
    from pyarrow.fs import FileSelector

    found: list[Any] = _store(key).get_file_info(
        FileSelector(key, allow_not_found=True, recursive=recursive)
    )
    return found


def _require_bucket(place: str, bucket: str) -> None:
    from pyarrow.fs import FileType

    try:
        reason = (
            None
            if _store(bucket).get_file_info(bucket).type == FileType.Directory
            else "there is no such bucket"
        )
    except OSError as error:
        reason = str(error).splitlines()[0]
    if reason is not None:
        raise InputError(
            "folder",
            "must lie in a bucket that can be reached",
            f"{place} ({reason})",
            "See to its name, to AWS_ENDPOINT_URL and to the credentials in the environment.",
        )


def _store(key: str) -> Any:
    """S3, or what speaks like it at AWS_ENDPOINT_URL; pyarrow finds credentials as AWS's own tools do."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    return _connect(key.partition("/")[0], endpoint, region)


@cache
def _connect(bucket: str, endpoint: str | None, region: str | None) -> Any:
    from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem, resolve_s3_region

    if region is None and endpoint is None:
        region = resolve_s3_region(bucket)
    retries = AwsStandardS3RetryStrategy(max_attempts=_ATTEMPTS)
    return S3FileSystem(region=region, endpoint_override=endpoint, retry_strategy=retries)
