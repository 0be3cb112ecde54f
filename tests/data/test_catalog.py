"""Downloads from a local server: each failure is one clear error and leaves no file behind."""

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from recsys.data.sources.catalog import CATALOG, find_download, find_embedded
from recsys.errors import InputError

CONTENT = bytes(range(256)) * 4000


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if not self.path.endswith("/ml-1m.zip"):
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        broken = self.path.startswith("/broken/")
        self.wfile.write(CONTENT[: len(CONTENT) // 2] if broken else CONTENT)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{http.server_port}"
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("RECSYS_DOWNLOADS", f"{url}/good")
    monkeypatch.setitem(CATALOG, "ml-1m", hashlib.md5(CONTENT).hexdigest())
    yield url
    http.shutdown()
    http.server_close()


def failure(name: str, cache: Path) -> str:
    with pytest.raises(InputError) as caught:
        find_download(name)
    assert isinstance(caught.value, InputError)
    assert list(cache.iterdir()) == []
    message = str(caught.value)
    assert "\n" not in message
    assert f"download {name}.zip by hand and pass its path as data.source" in message
    return message


def test_a_download_is_cached(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = find_download("ml-1m")
    assert path == tmp_path / "cache" / "ml-1m.zip"
    assert path.read_bytes() == CONTENT
    monkeypatch.setenv("RECSYS_DOWNLOADS", f"{server}/gone")
    assert find_download("ml-1m") == path
    assert list((tmp_path / "cache").iterdir()) == [path]


def test_wrong_checksum(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CATALOG, "ml-1m", "0" * 32)
    message = failure("ml-1m", tmp_path / "cache")
    assert message.startswith(
        f"{server}/good/ml-1m.zip: must be downloadable, but its MD5 is "
        f"{hashlib.md5(CONTENT).hexdigest()}"
    )


def test_interrupted_transfer(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECSYS_DOWNLOADS", f"{server}/broken")
    assert failure("ml-1m", tmp_path / "cache").startswith(
        f"{server}/broken/ml-1m.zip: must be downloadable, but the transfer was interrupted"
    )


@pytest.mark.usefixtures("server")
def test_missing_on_the_server(tmp_path: Path) -> None:
    assert "the server answered 404" in failure("ml-10m", tmp_path / "cache")


@pytest.mark.usefixtures("server")
def test_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The port was just closed: no process listens on it.
    unused = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    unused.server_close()
    monkeypatch.setenv("RECSYS_DOWNLOADS", f"http://127.0.0.1:{unused.server_port}")
    assert "there is no connection to the server" in failure("ml-1m", tmp_path / "cache")


def test_the_catalog_holds_checksums() -> None:
    assert list(CATALOG) == ["ml-100k", "ml-1m", "ml-10m", "ml-20m", "ml-25m", "ml-32m"]
    assert all(len(md5) == 32 and int(md5, 16) >= 0 for md5 in CATALOG.values())


def test_the_embedded_files() -> None:
    assert pq.read_metadata(find_embedded() / "ratings.parquet").num_rows == 100_004
    assert pq.read_metadata(find_embedded() / "movies.parquet").num_rows == 9_066
    assert (find_embedded() / "NOTICE.md").exists()
