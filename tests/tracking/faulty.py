"""A server in front of an MLflow server, which passes requests on, or fails as servers do."""

import threading
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar


class FaultyServer:
    """Server on loopback; `fault` is applied to requests whose path contains `only`.

    `None`: it is passed on. `error`: HTTP 500. `hang`: no answer until `close`. `lose`: it is
    passed on, and the answer is HTTP 500. `drop`: the connection is closed.
    """

    def __init__(self, behind: str, port: int = 0) -> None:
        self.behind = behind
        self.fault: str | None = None
        self.only = ""
        self.seen: list[str] = []
        self.closing = threading.Event()
        server = self

        class Handler(_Handler):
            owner = server

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.uri = f"http://127.0.0.1:{self._server.server_port}"

    def count(self, path: str) -> int:
        """Return the number of requests whose path contains this."""
        return sum(path in seen for seen in self.seen)

    def close(self) -> None:
        """Stop listening, after which connections are refused."""
        self.closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    owner: ClassVar[FaultyServer]

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.owner.seen.append(self.path)
        fault = self.owner.fault if self.owner.only in self.path else None
        if fault == "hang":
            self.owner.closing.wait()
        if fault in ("hang", "drop"):
            self.close_connection = True
            return
        status, content, kind = (
            (500, b"broken", "text/plain") if fault == "error" else self._pass_on(body)
        )
        if fault == "lose":
            status, content = 500, b"lost"
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_PATCH = _answer  # noqa: N815 (the names that http.server calls)

    def _pass_on(self, body: bytes) -> tuple[int, bytes, str]:
        kind = self.headers.get("Content-Type", "application/json")
        request = urllib.request.Request(
            self.owner.behind + self.path, body or None, {"Content-Type": kind}, method=self.command
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read(), answer.headers.get_content_type()
        except urllib.error.HTTPError as error:
            return error.code, error.read(), error.headers.get_content_type()

    def log_message(self, *_args: object) -> None: ...
