"""Downloads, from a server on this machine."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from slimface.errors import CheckpointError, MissingError
from slimface.model.download import download

CONTENT = bytes(range(256)) * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/none":
            self.send_error(404)
            return
        self.send_response(200)
        self.end_headers()
        short = len(CONTENT) // 2 if self.path == "/short" else len(CONTENT)
        self.wfile.write(CONTENT[:short] + (b"more" if self.path == "/long" else b""))

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()


@pytest.fixture(autouse=True)
def online(monkeypatch):
    monkeypatch.delenv("SLIMFACE_OFFLINE", raising=False)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


def fetch(url, target, **changes):
    download(url, target, **{"sha256": SHA256, "size": len(CONTENT), **changes})


def test_a_file_arrives_whole_and_tells_how_far_it_is(server, tmp_path):
    target = tmp_path / "new" / "file.pth"
    told = []
    fetch(f"{server}/file", target, progress=lambda done, total: told.append((done, total)))
    assert target.read_bytes() == CONTENT
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("path", ["short", "long"])
def test_other_content_is_thrown_away(server, tmp_path, path):
    with pytest.raises(CheckpointError):
        fetch(f"{server}/{path}", tmp_path / "file.pth")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_gone_is_said_with_the_way_round(server, tmp_path):
    with pytest.raises(MissingError, match=r"(?s)404.*by other means and put it at"):
        fetch(f"{server}/none", tmp_path / "file.pth")


def test_no_network_is_said_with_the_way_round(tmp_path):
    with pytest.raises(MissingError, match=r"(?s)out of reach.*SLIMFACE_WEIGHTS"):
        fetch("http://127.0.0.1:9/file", tmp_path / "file.pth")
    assert list(tmp_path.iterdir()) == []


def test_the_network_can_be_forbidden(server, tmp_path, monkeypatch):
    monkeypatch.setenv("SLIMFACE_OFFLINE", "1")
    with pytest.raises(MissingError, match="forbids the network"):
        fetch(f"{server}/file", tmp_path / "file.pth")
