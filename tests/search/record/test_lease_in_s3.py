"""The lease in S3: of several drivers one takes it; a server without conditions is detected."""

import os
import threading
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.error import HTTPError

import pytest

from recsys.errors import InputError
from recsys.search.record import lease
from recsys.search.record.lease_stores import Holder, LeaseObject
from recsys.storage.s3 import list_folder, open_folder
from tests.search.record.test_lease import other_process


def holder(name: str) -> Holder:
    """Return a driver on another machine."""
    return Holder(id=name, host="elsewhere", namespace="pid:[1]", pid=1)


def take_at_once(leases: list[LeaseObject], take: Callable[[int, LeaseObject], bool]) -> list[bool]:
    """Let each contender try to take the lease when all are ready."""
    ready = threading.Barrier(len(leases))

    def wait_and_take(number: int) -> bool:
        ready.wait(60)
        return take(number, leases[number])

    with ThreadPoolExecutor(len(leases)) as contenders:
        return list(contenders.map(wait_and_take, range(len(leases))))


def test_one_of_several_drivers_takes_a_new_lease(s3_place: str) -> None:
    for round_number in range(5):
        leases = [LeaseObject(f"{s3_place}/{round_number}/lease.json") for _ in range(4)]
        assert [one.read() for one in leases] == [None] * 4
        taken = take_at_once(leases, lambda number, one: one.take(None, holder(str(number))))
        assert sorted(taken) == [False, False, False, True]
        found = leases[0].read()
        assert found is not None
        assert found.holder == holder(str(taken.index(True)))


def test_one_of_several_drivers_takes_an_expired_lease(s3_place: str) -> None:
    old = LeaseObject(f"{s3_place}/lease.json")
    assert old.take(None, holder("old"))
    found = old.read()
    leases = [LeaseObject(f"{s3_place}/lease.json") for _ in range(4)]
    taken = take_at_once(leases, lambda number, one: one.take(found, holder(str(number))))
    assert sorted(taken) == [False, False, False, True]
    assert not old.renew(holder("old"))
    old.release(holder("old"))
    assert old.read() is not None


def test_a_lease_renewed_in_the_last_moment_is_kept(s3_place: str) -> None:
    here, there = (LeaseObject(f"{s3_place}/lease.json") for _ in range(2))
    assert here.take(None, holder("here"))
    found = there.read()
    assert here.renew(holder("here"))
    assert there.read() != found
    assert not there.take(found, holder("there"))
    here.release(holder("here"))
    assert here.read() is None


def test_a_second_process_is_refused_while_the_first_one_runs(
    s3_place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "EXPIRY_SECONDS", 1e9)
    folder = open_folder(s3_place)
    with other_process(s3_place) as process:
        message = f"must be searched by one process at a time, but got process {process.pid} on "
        with pytest.raises(InputError, match=message), lease.hold(folder):
            pytest.fail("held by two")
        process.kill()
        process.wait()
        with lease.hold(folder):
            assert list_folder(folder) == ["lease.json"]
    assert list_folder(folder) == []


class Between(BaseHTTPRequestHandler):
    """Proxy of S3 that removes conditions, or answers 501 to requests that have one."""

    protocol_version = "HTTP/1.1"  # has the header Expect
    behind = ""
    implements = False

    def _answer(self) -> None:
        conditional = "If-Match" in self.headers or "If-None-Match" in self.headers
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        status, content, etag = 501, b"<Error><Code>NotImplemented</Code></Error>", None
        if self.implements or not conditional:
            left_out = ("if-match", "if-none-match", "host", "expect")
            kept = {"Content-Type": "binary/octet-stream"}
            kept |= {
                name: value for name, value in self.headers.items() if name.lower() not in left_out
            }
            request = urllib.request.Request(
                self.behind + self.path, body or None, kept, method=self.command
            )
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    status, content, etag = answer.status, answer.read(), answer.headers["ETag"]
            except HTTPError as error:
                status, content = error.code, error.read()
        self.send_response(status)
        if etag is not None:
            self.send_header("ETag", etag)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_PUT = do_DELETE = _answer  # noqa: N815 (the names that http.server calls)

    def log_message(self, *_args: object) -> None: ...


@pytest.mark.parametrize("implements", [True, False], ids=["ignored", "501"])
def test_a_server_that_ignores_conditions_is_reported(
    s3_place: str,
    implements: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(Between, "behind", os.environ["AWS_ENDPOINT_URL"])
    monkeypatch.setattr(Between, "implements", implements)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Between)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    try:
        here, there = (LeaseObject(f"{s3_place}/lease.json") for _ in range(2))
        assert here.take(None, holder("here"))
        (warning,) = caplog.messages
        assert warning == (
            f"{s3_place}/lease.json: the server of S3 ignores conditional writes "
            "(IfNoneMatch, IfMatch), so that two searches of "
            "this study that start at the same moment would both run: start one alone."
        )
        assert here.renew(holder("here"))
        assert there.take(there.read(), holder("there"))
        # The next renewal reads the lease and detects the other holder.
        assert not here.renew(holder("here"))
        assert there.renew(holder("there"))
        there.release(holder("there"))
        assert there.read() is None
    finally:
        server.shutdown()
        server.server_close()
