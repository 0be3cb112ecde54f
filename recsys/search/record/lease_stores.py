"""Stores of a study's lease: a locked file, or an object in S3 that is written on conditions.

`lease` decides when a lease is free. Either store changes a lease only if it has not changed since
it was read.
"""

import json
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from recsys.storage.files import file_lock, write_atomically

_REQUEST_SECONDS, _ATTEMPTS = 4, 3
_REFUSED = (404, 409, 412)
"""Statuses of S3 when a condition does not hold: the object does not exist, is being written by
another client, or has changed."""
_NOT_IMPLEMENTED = 501
_log = logging.getLogger(__name__)


class Holder(BaseModel):
    """Holder of a lease. Its process id is valid on its host, within its PID namespace."""

    model_config = ConfigDict(frozen=True)

    id: str
    host: str
    namespace: str
    pid: int = Field(gt=0, lt=2**31)


@dataclass(frozen=True)
class Found:
    """A lease as it was read.

    `holder`: None if the content is torn, after a crash of the machine. `version`: changes with
    each renewal.
    """

    holder: Holder | None
    version: str


class LeaseFile:
    """Lease on a disk. A renewal sets its modification time, which works on a full disk too."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> Found | None:
        """Return the lease, None if there is none.

        Content and time come from one open file: a network file system asks its server when a file
        is opened, but may answer for a name from its cache.
        """
        try:
            with self._path.open("rb") as file:
                return _parse(file.read(), str(os.fstat(file.fileno()).st_mtime_ns))
        except FileNotFoundError:
            return None

    def take(self, found: Found | None, holder: Holder) -> bool:
        """Write the lease unless it has changed since `found`; return whether it was written."""
        with file_lock(self._path):
            if self.read() != found:
                return False
            with write_atomically(self._path) as file:
                file.write_text(holder.model_dump_json(), encoding="utf-8")
            return True

    def renew(self, holder: Holder) -> bool:
        """Renew the lease; return False if it is another holder's."""
        with file_lock(self._path):
            if not self._is_held_by(holder):
                return False
            os.utime(self._path)
            return True

    def release(self, holder: Holder) -> None:
        """Delete the lease unless it is another holder's."""
        with file_lock(self._path):
            if self._is_held_by(holder):
                self._path.unlink()

    def _is_held_by(self, holder: Holder) -> bool:
        found = self.read()
        return found is not None and found.holder == holder


class LeaseObject:
    """Lease in S3. A renewal writes it with a new number, so that each version has its own ETag."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._bucket, _, self._key = url.removeprefix("s3://").partition("/")
        self._client = _connect()
        self._n_writes = 0
        self._etag = ""
        self._checks_conditions = True

    def read(self) -> Found | None:
        """Return the lease, None if there is none."""
        answer = self._send(self._client.get_object)
        return None if answer is None else _parse(answer["Body"].read(), answer["ETag"])

    def take(self, found: Found | None, holder: Holder) -> bool:
        """Write the lease unless it has changed since `found`; return whether it was written.

        Logs a warning if the server turns out to ignore conditions.
        """
        if not self._write(
            holder, {"IfNoneMatch": "*"} if found is None else {"IfMatch": found.version}
        ):
            return False
        # Both conditions are false now: a server that checks them refuses.
        broken = [
            name
            for name, value in {"IfNoneMatch": "*", "IfMatch": '"0"'}.items()
            if self._put(holder, {name: value})
        ]
        if broken:
            self._checks_conditions = False
            _log.warning(
                "%s: the server of S3 ignores conditional writes (%s), so that two searches of "
                "this study that start at the same moment would both run: start one alone.",
                self._url,
                ", ".join(broken),
            )
        return True

    def renew(self, holder: Holder) -> bool:
        """Renew the lease; return False if it is another holder's."""
        if not self._checks_conditions and not self._is_held_by(holder):
            return False
        return self._write(holder, {"IfMatch": self._etag})

    def release(self, holder: Holder) -> None:
        """Delete the lease unless it is another holder's."""
        if self._is_held_by(holder):
            self._send(self._client.delete_object, {"IfMatch": self._etag})

    def _write(self, holder: Holder, condition: dict[str, str]) -> bool:
        """Write the lease on a condition; return whether the lease is now this holder's."""
        self._n_writes += 1
        if self._put(holder, condition):
            return True
        # The refusal may be of a repeated request whose first attempt succeeded without an answer.
        return self._is_held_by(holder)

    def _put(self, holder: Holder, condition: dict[str, str]) -> bool:
        body = json.dumps({**holder.model_dump(), "write": self._n_writes}).encode()
        answer = self._send(
            self._client.put_object, condition if self._checks_conditions else {}, Body=body
        )
        if answer is not None:
            self._etag = answer["ETag"]
        return answer is not None

    def _is_held_by(self, holder: Holder) -> bool:
        found = self.read()
        if found is None or found.holder != holder:
            return False
        self._etag = found.version
        return True

    def _send(
        self, request: Callable[..., Any], condition: dict[str, str] | None = None, **arguments: Any
    ) -> Any:
        """Send a request and return its answer, None if its condition does not hold.

        Raises:
            ConnectionError: if S3 does not answer or denies access.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return request(Bucket=self._bucket, Key=self._key, **(condition or {}), **arguments)
        except ClientError as error:
            status = error.response["ResponseMetadata"]["HTTPStatusCode"]
            if status in _REFUSED and error.response["Error"]["Code"] != "NoSuchBucket":
                return None
            if status == _NOT_IMPLEMENTED and condition:
                return self._send(request, **arguments)
            reason: Exception = error
        except BotoCoreError as error:
            reason = error
        raise ConnectionError(str(reason))


def _connect() -> Any:
    """Return a client that gives up before a lease expires.

    It finds the server, its region and the credentials as pyarrow's does.
    """
    import boto3
    from botocore.config import Config

    own_server = "AWS_ENDPOINT_URL_S3" in os.environ or "AWS_ENDPOINT_URL" in os.environ
    config = Config(
        connect_timeout=_REQUEST_SECONDS,
        read_timeout=_REQUEST_SECONDS,
        retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
        s3={"addressing_style": "path" if own_server else "auto"},
        request_checksum_calculation="when_required",
    )
    return boto3.client("s3", region_name=os.environ.get("AWS_REGION"), config=config)


def _parse(content: bytes, version: str) -> Found:
    try:
        return Found(Holder.model_validate_json(content), version)
    except ValidationError:
        return Found(None, version)
