"""Group E: addresses that lead into the network here, that never end, never come, or lie."""

from __future__ import annotations

import _socket
import copy
import io
import ipaddress
import socket
import threading
import time
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from i2vgen_ms.errors import MediaError, MediaLimitError, UnreadableMediaError
from i2vgen_ms.media.addresses import is_public
from i2vgen_ms.media.limits import Limits
from i2vgen_ms.pipelines import ImageToVideo, VideoToVideo, load
from tests.hostile.helpers import QUICK, leaves
from tests.media.test_download import Handler

pytestmark = [pytest.mark.hostile, pytest.mark.group("E"), pytest.mark.bounds(seconds=20, rss_mib=200)]

QUICKLY = Limits(max_bytes=100_000, connect_seconds=5, total_seconds=0.5)
STRANGERS = Limits(max_bytes=100_000, connect_seconds=5, total_seconds=2, urls="public", paths=False)
PUBLIC = "93.184.215.14"
PRIVATE = (
    *("127.0.0.1", "127.1.2.3", "0.0.0.0", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.0.1", "100.64.0.1"),
    *("169.254.169.254", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255", "192.0.0.8", "198.18.0.1"),
    *("192.0.2.1", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12::1", "ff02::1", "fec0::1"),
    *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1", "64:ff9b::a00:1"),
    *("2002:7f00:1::1", "2002:0a00:0001::1", "2001::1", "2001:db8::1", "::127.0.0.1"),
)


class Site(Handler):
    """The download tests' server, with a picture at /picture."""

    body = b""

    def serve(self) -> None:
        if self.path == "/html":
            page = b"<!DOCTYPE html><html>sign in</html>"
            self.answer(body=page, Content_Type="text/html", Content_Length=str(len(page)))
        elif self.path == "/huge":
            self.answer(Content_Length=str(10 << 30))
            self.drip(b"x" * 1000)
        else:
            super().serve()


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    file = io.BytesIO()
    Image.fromarray(np.full((32, 48, 3), 99, np.uint8)).save(file, "PNG")
    monkeypatch.setattr(Site, "body", file.getvalue())
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    server.seen, server.daemon_threads, server.block_on_close = [], True, False
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    server.port = server.server_address[1]
    server.at = f"http://127.0.0.1:{server.port}"
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def of(pipe: Any, limits: Limits) -> Any:
    """The same pipeline with other limits."""
    pipe = copy.copy(pipe)
    pipe.limits = limits
    return pipe


class Internet:
    """Names and what they resolve to, one answer after the other; every public address is the site on this machine."""

    def __init__(self, patch: pytest.MonkeyPatch, port: int, names: dict[str, list[str]]) -> None:
        self.names, self.connected = names, list[str]()

        def resolve(host: str, wanted: int, *_: Any, **__: Any) -> list[Any]:
            answers = self.names[host]
            address = answers.pop(0) if len(answers) > 1 else answers[0]
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            return [(family, socket.SOCK_STREAM, 6, "", (address, wanted))]

        def connect(this: socket.socket, place: Any) -> None:
            self.connected.append(place[0])
            _socket.socket.connect(this, ("127.0.0.1", port) if place[0] == PUBLIC else place)

        patch.setattr(socket, "getaddrinfo", resolve)
        patch.setattr(socket.socket, "connect", connect)


@pytest.mark.parametrize("address", PRIVATE)
def test_it_is_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", [PUBLIC, "8.8.8.8", "1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_it_is_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "localhost", "[::1]", "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "0", "0.0.0.0"),
        *("[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:0:0:1]", "me:pw@127.0.0.1", "8.8.8.8@127.0.0.1"),
    ],
)
def test_however_this_machine_is_written_strangers_do_not_reach_it(
    pipe: ImageToVideo, site: Any, tmp_path: Path, host: str
) -> None:
    address = f"http://{host}:{site.port}/good"
    with (
        leaves(tmp_path),
        pytest.raises(MediaLimitError, match=r"not an address of the public internet.*the file"),
    ):
        of(pipe, STRANGERS)(address, output=tmp_path / "out.mp4", **QUICK)
    assert site.seen == []


@pytest.mark.parametrize("address", ["10.0.0.8", "192.168.1.1", "169.254.169.254", "fd00::8", "::ffff:10.0.0.8"])
def test_nor_a_name_that_leads_into_the_network(
    pipe: ImageToVideo, site: Any, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    internet = Internet(monkeypatch, site.port, {"metadata.test": [address]})
    with pytest.raises(MediaLimitError, match=r"'metadata\.test' is not an address of the public internet") as caught:
        of(pipe, STRANGERS)("http://metadata.test/latest/meta-data", **QUICK)
    assert internet.connected == []
    assert address not in str(caught.value)


def test_a_public_address_is_fetched(pipe: ImageToVideo, site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    internet = Internet(monkeypatch, site.port, {"pictures.test": [PUBLIC]})
    assert of(pipe, STRANGERS)("http://pictures.test/good", output_type="frames", **QUICK).frames.shape[0] == 3
    assert internet.connected == [PUBLIC]


@pytest.mark.parametrize("target", ["http://127.0.0.1:{port}/good", "http://inside.test/good", "http://six.test/good"])
def test_a_redirect_is_checked_again(
    pipe: ImageToVideo, site: Any, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    names = {"pictures.test": [PUBLIC], "inside.test": ["10.0.0.8"], "127.0.0.1": ["127.0.0.1"], "six.test": ["::1"]}
    internet = Internet(monkeypatch, site.port, names)
    with pytest.raises(MediaLimitError, match="not an address of the public internet"):
        of(pipe, STRANGERS)("http://pictures.test/to/" + target.format(port=site.port), **QUICK)
    assert internet.connected == [PUBLIC]
    assert len(site.seen) == 1


def test_a_name_that_changes_its_mind_gains_nothing(
    pipe: ImageToVideo, site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    internet = Internet(monkeypatch, site.port, {"rebind.test": [PUBLIC, "127.0.0.1"]})
    of(pipe, STRANGERS)("http://rebind.test/good", **QUICK)
    assert internet.connected == [PUBLIC]
    with pytest.raises(MediaLimitError, match="public internet"):
        of(pipe, STRANGERS)("http://rebind.test/good", **QUICK)


def test_no_proxy_is_asked_in_their_name(pipe: ImageToVideo, site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, site.at)
    Internet(monkeypatch, site.port, {"inside.test": ["10.0.0.8"]})
    with pytest.raises(MediaLimitError, match="public internet"):
        of(pipe, STRANGERS)("http://inside.test/good", **QUICK)
    assert site.seen == []


def test_strangers_open_no_files(pipe: ImageToVideo, second: VideoToVideo, tmp_path: Path) -> None:
    for name in ("picture.png", "/etc/passwd", "file:///etc/passwd", tmp_path):
        for each in (pipe, second):
            with leaves(tmp_path), pytest.raises(MediaError, match=r"not opened here|are not read"):
                of(each, STRANGERS)(name, output=tmp_path / "out.mp4", **QUICK)


def test_urls_can_be_refused_altogether(second: VideoToVideo, site: Any) -> None:
    with pytest.raises(MediaLimitError, match="switched off"):
        of(second, Limits(urls="none"))(site.at + "/good", **QUICK)
    assert site.seen == []


def test_the_limits_are_those_that_the_pipeline_was_loaded_with(folder: Path) -> None:
    assert load(folder, device="cpu", limits=STRANGERS).limits is STRANGERS


@pytest.mark.parametrize("word", ["all", "", True, None])
def test_another_word_is_not_taken_for_yes(word: Any) -> None:
    with pytest.raises(ValueError, match="'any', 'public', 'none'"):
        Limits(urls=word)


@pytest.mark.parametrize(
    "address",
    ["file:///etc/passwd", "ftp://127.0.0.1/x.png", "oss://bucket/x.png", "gopher://127.0.0.1/x", "data:image/png,x"],
)
@pytest.mark.parametrize("redirected", [False, True])
def test_only_the_web_is_fetched(pipe: ImageToVideo, site: Any, address: str, redirected: bool) -> None:
    with pytest.raises(UnreadableMediaError, match=r"are not read|not http\(s\)"):
        of(pipe, QUICKLY)(f"{site.at}/to/{address}" if redirected else address, **QUICK)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/huge", r"10240\.0 MiB; at most 100000 bytes"),
        ("/endless", "more than 100000 bytes"),
        ("/slow-body", r"not there after 0\.5 seconds"),
        ("/slow-body-without-length", r"not there after 0\.5 seconds"),
        ("/slow-header", r"not there after 0\.5 seconds"),
        ("/packed", "packed body"),
        ("/cut", "cannot be downloaded: .*50 bytes read, 50 more expected"),
        ("/missing", "answers 404"),
        ("/loop", "redirects more than 3 times"),
        ("/hop/3", "redirects more than 3 times"),
        ("/html", "not a picture"),
    ],
)
def test_a_bad_answer_ends_in_a_typed_error_in_time(
    pipe: ImageToVideo, site: Any, tmp_path: Path, path: str, words: str
) -> None:
    begun = time.monotonic()
    with leaves(tmp_path), pytest.raises((MediaLimitError, UnreadableMediaError), match=words):
        of(pipe, QUICKLY)(site.at + path, output=tmp_path / "out.mp4", **QUICK)
    assert time.monotonic() - begun < 3


def test_a_missing_certificate_is_an_error(pipe: ImageToVideo, site: Any) -> None:
    with pytest.raises(UnreadableMediaError, match=r"cannot be downloaded: .*SSL"):
        of(pipe, QUICKLY)(site.at.replace("http:", "https:") + "/good", **QUICK)


def test_the_private_list_is_what_the_library_says_too() -> None:
    """What Python itself calls private is private here."""
    for first in range(256):
        for second_byte in (0, 1, 64, 168, 254):
            address = ipaddress.ip_address(f"{first}.{second_byte}.0.1")
            assert not (is_public(str(address)) and (address.is_private or address.is_loopback))
