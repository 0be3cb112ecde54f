"""Folders in S3, each with a local copy that the rest of recsys works on.

`open_folder("s3://bucket/prefix")` returns the path of a new local copy, such as
`/tmp/recsys-x1y2/s3:/bucket/prefix`. The path contains the URL, so tasks and trials on other nodes
need only the path. A file is fetched from S3 before it is read and uploaded after it is written.
For a local folder, fetching and uploading do nothing.
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

from recsys.errors import Argument, InputError

_LOCAL_COPY = re.compile(r"[^\s\"']*/recsys-[^\s/\"']+/s3:/")
"""Start of a local copy's path in a text, up to the bucket."""
_COPY_PATH = re.compile(r".*/recsys-[^/]+/s3:/")
"""The same of a path alone, which may have blanks."""
_MAX_ATTEMPTS = 8
"""Attempts per request to S3, with growing pauses between them."""
_CONCURRENT_TRANSFERS = 8
"""Files that are fetched or uploaded at a time."""


def open_folder(folder: str) -> Path:
    """Return a local folder as a path, or an empty local copy for a folder in S3.

    The copy is deleted when this process exits.

    Args:
        folder: a path, or `s3://BUCKET/PREFIX`.

    Raises:
        InputError: if `folder` is another URL or contains credentials; if it is in S3 and boto3 is
            not installed, the bucket does not exist, or S3 cannot be reached.
    """
    scheme, separator, rest = folder.partition("://")
    if not separator:
        return Path(folder)
    key = rest.strip("/")
    _require_s3_url(folder, scheme, key)
    _require_bucket(folder, key.partition("/")[0])
    copy = Path(tempfile.mkdtemp(prefix="recsys-"))
    atexit.register(shutil.rmtree, copy, ignore_errors=True)
    return copy / "s3:" / key


def url_of(path: Path) -> str | None:
    """Return the URL of a path in a local copy, None for another path."""
    key = _key(path)
    return None if key is None else f"s3://{key}"


def restore_urls(text: str) -> str:
    """Replace the paths of local copies in a text by their URLs."""
    return _LOCAL_COPY.sub("s3://", text)


def list_folder(folder: Path) -> list[str]:
    """Return the names of the files and folders in a folder; none if the folder does not exist."""
    if (key := _key(folder)) is None:
        return [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    return [info.base_name for info in _list_objects(key, recursive=False)]


def fetch(path: Path) -> None:
    """Copy a file from S3, with its modification time; delete the local file if S3 has none."""
    if (key := _key(path)) is None:
        return
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        _download(key, partial)
        changed = _file_system(key).get_file_info(key).mtime_ns
        if changed is not None:
            os.utime(partial, ns=(changed, changed))
        partial.replace(path)
    except FileNotFoundError:
        path.unlink(missing_ok=True)
    finally:
        partial.unlink(missing_ok=True)


def fetch_folder(folder: Path, exclude: Collection[str] = ()) -> None:
    """Copy a folder from S3, and delete local files that S3 does not have.

    Args:
        folder: the folder.
        exclude: names of files and folders directly in it that are not copied.
    """
    if (key := _key(folder)) is None:
        return
    objects = _list_objects(key, recursive=True)
    remote = {info.path.removeprefix(f"{key}/") for info in objects if info.is_file}
    local = {str(path.relative_to(folder)) for path in folder.rglob("[!.]*") if path.is_file()}
    for name in local - remote:
        (folder / name).unlink(missing_ok=True)
    wanted = [folder / name for name in sorted(remote) if name.partition("/")[0] not in exclude]
    with ThreadPoolExecutor(_CONCURRENT_TRANSFERS) as transfers:
        list(transfers.map(fetch, wanted))


def upload(path: Path, content: Path | None = None) -> None:
    """Copy a file to S3, where it replaces an older one.

    Args:
        path: the file.
        content: another file with the content to upload, None for `path` itself.
    """
    if (key := _key(path)) is not None:
        _upload(content or path, key)


def upload_folder(folder: Path, last: str) -> None:
    """Copy a folder to S3, with the file `last` after all others.

    `last` is deleted in S3 first, so that S3 has it only while the folder there is complete.
    """
    if _key(folder) is None:
        return
    _delete_object(folder / last)
    files = [path for path in folder.rglob("[!.]*") if path.is_file() and path != folder / last]
    with ThreadPoolExecutor(_CONCURRENT_TRANSFERS) as transfers:
        list(transfers.map(upload, files))
    upload(folder / last)


def delete_local_copy(path: Path) -> None:
    """Delete the local copy of a file or folder in S3; leave a local path as it is."""
    if url_of(path) is None:
        return
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def remove(path: Path) -> None:
    """Delete a file, locally and in S3, if it exists."""
    path.unlink(missing_ok=True)
    _delete_object(path)


def remove_folder(folder: Path) -> None:
    """Delete a folder and its content, locally and in S3, if it exists."""
    shutil.rmtree(folder, ignore_errors=True)
    if (key := _key(folder)) is not None and _list_objects(key, recursive=False):
        _file_system(key).delete_dir(key)


def move_in_s3(path: Path, target: Path) -> None:
    """Rename a file in S3, if it exists, so that it replaces `target`."""
    if (key := _key(path)) is not None and path.name in list_folder(path.parent):
        _file_system(key).move(key, _key(target))


def _key(path: Path) -> str | None:
    """Return `BUCKET/KEY` of a path in a local copy, None for another path."""
    match = _COPY_PATH.match(str(path))
    return None if match is None else str(path)[match.end() :]


def _delete_object(path: Path) -> None:
    if (key := _key(path)) is not None and path.name in list_folder(path.parent):
        _file_system(key).delete_file(key)


def _download(key: str, path: Path) -> None:
    from pyarrow.fs import LocalFileSystem, copy_files

    copy_files(key, str(path), _file_system(key), LocalFileSystem())


def _upload(path: Path, key: str) -> None:
    from pyarrow.fs import LocalFileSystem, copy_files

    copy_files(str(path), key, LocalFileSystem(), _file_system(key))


def _list_objects(key: str, *, recursive: bool) -> list[Any]:
    from pyarrow.fs import FileSelector

    selector = FileSelector(key, allow_not_found=True, recursive=recursive)
    objects: list[Any] = _file_system(key).get_file_info(selector)
    return objects


def _require_s3_url(url: str, scheme: str, key: str) -> None:
    if scheme != "s3" or not key:
        rule = "must be a folder or s3://BUCKET/PREFIX"
        raise InputError(Argument("folder"), rule, url, "Give one of the two.")
    if "@" in key or "?" in key:
        raise InputError(
            Argument("folder"),
            "must be s3://BUCKET/PREFIX alone",
            "credentials or settings in it",
            "Set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_ENDPOINT_URL instead.",
        )
    if find_spec("boto3") is None:
        raise InputError(
            Argument("folder"),
            "must be on a disk, since boto3 is not installed",
            url,
            "Install the extra s3: pip install -c constraints.txt -e '.[s3]'.",
        )


def _require_bucket(url: str, bucket: str) -> None:
    from pyarrow.fs import FileType

    try:
        if _file_system(bucket).get_file_info(bucket).type == FileType.Directory:
            return
        reason = "there is no such bucket"
    except OSError as error:
        reason = str(error).splitlines()[0]
    raise InputError(
        Argument("folder"),
        "must be in a bucket that can be reached",
        f"{url} ({reason})",
        "Check its name, AWS_ENDPOINT_URL and the credentials in the environment.",
    )


def _file_system(key: str) -> Any:
    """Return S3 or the server at AWS_ENDPOINT_URL, with the credentials that the AWS CLI finds."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    return _connect(key.partition("/")[0], endpoint, region)


@cache
def _connect(bucket: str, endpoint: str | None, region: str | None) -> Any:
    from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem, resolve_s3_region

    if region is None and endpoint is None:
        region = resolve_s3_region(bucket)
    retries = AwsStandardS3RetryStrategy(max_attempts=_MAX_ATTEMPTS)
    return S3FileSystem(region=region, endpoint_override=endpoint, retry_strategy=retries)
