"""Pictures by address, against a server on the loopback: limits on size, time and redirects hold."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image

from i2vgen_ms.errors import MediaLimitError, UnreadableMediaError
from i2vgen_ms.media.download import download
from i2vgen_ms.media.limits import Limits
from i2vgen_ms.media.picture import read_picture
from i2vgen_ms.media.source import read_source

BODY = b"0123456789" * 10
QUICK = Limits(max_bytes=1000, connect_seconds=5, total_seconds=0.4, redirects=3)
PUBLIC = Limits(urls="public", paths=False)


class Handler(BaseHTTPRequestHandler):
    """Each path is one way to misbehave."""

    body = BODY

    def log_message(self, *args):
        pass

    def answer(self, status=200, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.server.seen.append((self.path, self.headers.get("Accept-Encoding")))
        with contextlib.suppress(OSError):
            self.serve()

    def serve(self):
        path = self.path
        if path == "/good":
            self.answer(body=self.body, Content_Length=str(len(self.body)))
        elif path == "/without-length":
            self.answer(body=self.body)
        elif path == "/announced":
            self.answer(body=b"x", Content_Length="10000000000")
        elif path == "/endless":
            self.answer()
            for _ in range(10_000):
                self.wfile.write(b"x" * 1000)
        elif path == "/slow-body":
            self.answer(Content_Length="1000")
            self.drip(b"x")
        elif path == "/slow-body-without-length":
            self.answer()
            self.drip(b"x")
        elif path == "/slow-header":
            self.wfile.write(b"HTTP/1.0 200 OK\r\nX: ")
            self.drip(b"x")
        elif path == "/cut":
            self.answer(body=b"x" * 50, Content_Length="100")
        elif path == "/packed":
            self.answer(body=self.body, Content_Encoding="gzip")
        elif path.startswith("/hop/"):
            left = int(path[5:])
            self.answer(302, Location=f"/hop/{left - 1}" if left else "/good", Content_Length="0")
        elif path == "/loop":
            self.answer(301, Location="/loop", Content_Length="0")
        elif path.startswith("/to/"):
            self.answer(307, Location=path[4:], Content_Length="0")
        elif path == "/big-redirect":
            self.answer(302, Location="/good")
            for _ in range(10_000):
                self.wfile.write(b"x" * 1000)
        else:
            self.answer(404, Content_Length="0")

    def drip(self, piece):
        for _ in range(100):
            self.wfile.write(piece)
            self.wfile.flush()
            time.sleep(0.05)


@pytest.fixture
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.seen = []
    server.daemon_threads = True
    server.block_on_close = False
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    server.at = f"http://127.0.0.1:{server.server_address[1]}"
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("path", ["/good", "/without-length", "/hop/0", "/hop/2", "/big-redirect"])
def test_the_body_arrives(server, path):
    assert read_source(server.at + path, limits=QUICK) == BODY
    assert {encoding for _, encoding in server.seen} == {"identity"}


def test_a_picture_by_address(server, tmp_path, monkeypatch):
    array = np.random.default_rng(0).integers(0, 256, (8, 9, 3), dtype=np.uint8)
    Image.fromarray(array).save(tmp_path / "p.png")
    monkeypatch.setattr(Handler, "body", (tmp_path / "p.png").read_bytes())
    assert np.array_equal(read_picture(server.at.replace("http", "HTTP") + "/good"), array)


@pytest.mark.parametrize(
    ("path", "words"),
    [("/announced", "9536.7 MiB; at most 1000 bytes"), ("/endless", "more than 1000 bytes")],
)
def test_size_is_limited_before_and_while_receiving(server, path, words):
    with pytest.raises(MediaLimitError, match=words), download(server.at + path, limits=QUICK, max_bytes=1000):
        pytest.fail("all of it was taken")


@pytest.mark.parametrize("path", ["/slow-body", "/slow-body-without-length", "/slow-header"])
def test_time_is_limited_however_slowly_the_server_answers(server, path):
    before = threading.active_count()
    begun = time.monotonic()
    with pytest.raises(MediaLimitError, match=r"0\.4 seconds"):
        read_source(server.at + path, limits=QUICK)
    assert time.monotonic() - begun < 2
    assert not [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]
    assert threading.active_count() <= before + 1  # the server's own


def test_a_server_that_says_nothing_is_given_up():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        begun = time.monotonic()
        with pytest.raises(MediaLimitError, match="seconds"):
            read_source(f"http://127.0.0.1:{silent.getsockname()[1]}/", limits=QUICK)
        assert time.monotonic() - begun < 2


@pytest.mark.parametrize("path", ["/hop/3", "/loop"])
def test_redirects_are_counted(server, path):
    with pytest.raises(MediaLimitError, match="more than 3 times"):
        read_source(server.at + path, limits=QUICK)
    assert len(server.seen) == 4


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "data:,x"])
def test_redirects_stay_on_the_web(server, target):
    with pytest.raises(UnreadableMediaError, match=r"not http\(s\)"):
        read_source(f"{server.at}/to/{target}", limits=QUICK)


@pytest.mark.parametrize(("path", "words"), [("/missing", "404"), ("/cut", "50"), ("/packed", "packed")])
def test_bad_answers_are_named(server, path, words):
    with pytest.raises(UnreadableMediaError, match=words):
        read_source(server.at + path, limits=QUICK)


def test_no_server_no_host_and_no_address():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    for address in (f"http://127.0.0.1:{port}/", "http://", "http://[::1", "https://127.0.0.1:1/"):
        with pytest.raises(UnreadableMediaError, match="cannot be downloaded"):
            read_source(address, limits=QUICK)


def test_addresses_can_be_switched_off(server):
    with pytest.raises(MediaLimitError, match="switched off"):
        read_source(server.at + "/good", limits=Limits(urls="none"))
    assert server.seen == []


def test_a_password_stays_out_of_messages(server):
    with pytest.raises(UnreadableMediaError) as caught:
        read_source(server.at.replace("http://", "http://me:secret@") + "/missing", limits=QUICK)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]"])
def test_only_public_addresses_are_fetched_if_that_is_wanted(server, host):
    with pytest.raises(MediaLimitError, match="not an address of the public internet"):
        read_source(server.at.replace("127.0.0.1", host) + "/good", limits=PUBLIC)
    assert server.seen == []


def test_what_was_checked_is_what_is_connected_to(server, monkeypatch):
    """A name that is public when it is looked at, and this machine a moment later."""
    answers = iter(["93.184.215.14", "127.0.0.1"])
    family = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, port, *_, **__: [(*family, (next(answers), port))])
    connected = []

    def connect(self, place):
        connected.append(place[0])
        raise TimeoutError("nobody is there")

    monkeypatch.setattr(socket.socket, "connect", connect)
    with pytest.raises(UnreadableMediaError, match="cannot be downloaded"):
        read_source("http://rebind.test/good", limits=PUBLIC)
    assert connected == ["93.184.215.14"]


def test_proxies_and_passwords_of_the_environment_are_not_used_for_strangers(server, monkeypatch):
    monkeypatch.setenv("http_proxy", server.at)
    monkeypatch.delenv("no_proxy", raising=False)
    with pytest.raises(MediaLimitError, match="public"):
        read_source("http://10.0.0.1/good", limits=PUBLIC)
    assert server.seen == []


def test_paths_can_be_switched_off(tmp_path):
    (tmp_path / "p.png").write_bytes(BODY)
    with pytest.raises(MediaLimitError, match="names of files are not opened here; send the file itself"):
        read_source(tmp_path / "p.png", limits=PUBLIC)
    assert read_source(BODY, limits=PUBLIC) == BODY
