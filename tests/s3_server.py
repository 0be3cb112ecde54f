"""A real server of S3's protocol, moto's, in its own process; for the fixtures of `conftest`."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BUCKET = "recsys-tests"
_GIVE_UP_SECONDS = 240.0
_SERVE = """
import sys, threading
from moto.s3.responses import S3Response
from moto.server import main

lock = threading.Lock()

def one_at_a_time(method):
    def call(self):
        with lock:
            return method(self)
    return call

S3Response.put_object = one_at_a_time(S3Response.put_object)
S3Response.delete_object = one_at_a_time(S3Response.delete_object)
main(sys.argv[1:])
"""
"""moto checks a request's condition and executes it in two steps; S3 does both in one."""


@contextmanager
def running_s3(folder: Path) -> Iterator[dict[str, str]]:
    """Run a server with one bucket and a log in `folder`; yield the environment of its clients."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (folder / "s3.log").open("w") as log:
        command = [sys.executable, "-c", _SERVE, "-H", "127.0.0.1", "-p", str(port)]
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        end = time.monotonic() + _GIVE_UP_SECONDS
        while not _listens(port):
            assert process.poll() is None, (folder / "s3.log").read_text()
            assert time.monotonic() < end, "S3's server does not answer"
            time.sleep(0.1)
        places = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_DEFAULT_REGION": "us-east-1"}
        _make_bucket(places["AWS_ENDPOINT_URL"])
        yield {**places, "AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret"}
    finally:
        process.kill()
        process.wait(60)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True


def _make_bucket(endpoint: str) -> None:
    import boto3

    keys = {
        "aws_access_key_id": "id",
        "aws_secret_access_key": "secret",
        "region_name": "us-east-1",
    }
    boto3.client("s3", endpoint_url=endpoint, **keys).create_bucket(Bucket=BUCKET)
