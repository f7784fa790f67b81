"""Bytes from paths, bytes and file objects: within limits, never from a pipe or a device, never from another scheme."""

from __future__ import annotations

import io
import os
import threading

import pytest

from i2vgen_ms.errors import ArgumentError, MediaLimitError, UnreadableMediaError
from i2vgen_ms.media.limits import Limits, words
from i2vgen_ms.media.source import describe, open_source, read_source

SMALL = Limits(max_bytes=10)


class Trickle(io.RawIOBase):
    """A stream that cannot seek and never ends."""

    def __init__(self, end: int | None = None) -> None:
        self.given, self.end = 0, end

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        size = 3 if self.end is None else min(3, self.end - self.given)
        self.given += size
        return b"x" * size


def test_exactly_the_limit_is_read_and_one_more_is_not(tmp_path):
    path = tmp_path / "ten"
    path.write_bytes(b"0123456789")
    for source in (path, str(path), b"0123456789", io.BytesIO(b"0123456789")):
        assert read_source(source, limits=SMALL) == b"0123456789"
    path.write_bytes(b"0123456789!")
    for source in (path, str(path), path.read_bytes(), io.BytesIO(path.read_bytes())):
        with pytest.raises(MediaLimitError, match="at most 10 bytes"):
            read_source(source, limits=SMALL)


def test_streams_that_cannot_seek_are_read_up_to_the_limit():
    assert read_source(Trickle(end=10), limits=SMALL) == b"x" * 10
    endless = Trickle()
    with pytest.raises(MediaLimitError, match="more than 10 bytes"):
        read_source(endless, limits=SMALL)
    assert endless.given <= 20


def test_a_file_that_grows_after_it_was_measured(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b"12345")
    with open_source(path, limits=SMALL) as file:
        path.write_bytes(b"1" * 1000)
        assert len(file.read()) == 1000  # streaming readers have limits of their own
    proc = "/proc/self/status"  # announces no size at all
    if os.path.exists(proc):
        with pytest.raises(MediaLimitError):
            read_source(proc, limits=SMALL)


def test_file_objects_stay_open_and_where_they_were(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"12345")
    with open(path, "rb") as file:
        file.seek(3)
        assert read_source(file, limits=SMALL) == b"12345"
        assert file.tell() == 3
        with pytest.raises(MediaLimitError):
            read_source(file, limits=Limits(max_bytes=4))
        assert file.tell() == 3


def test_what_was_opened_is_closed(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"12345")
    with open_source(path, limits=SMALL) as file:
        assert not file.closed
    assert file.closed


@pytest.mark.parametrize("name", ["missing", "", "nul\0inside", "x" * 5000, "concat:a|b", "lavfi:testsrc", "C:nothing"])
def test_names_that_cannot_be_opened(name):
    with pytest.raises(UnreadableMediaError):
        read_source(name, limits=SMALL)


@pytest.mark.parametrize(
    "address",
    ["file:///etc/passwd", "FTP://h/x", "oss://b/x", "gopher://h/", "data:image/png;base64,AAAA", "s3://b/k"],
)
def test_other_schemes_are_refused_by_name(address):
    with pytest.raises(UnreadableMediaError, match="addresses of the kind"):
        read_source(address, limits=SMALL)


def test_folders_pipes_and_devices_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name in (tmp_path, tmp_path / "pipe", "/dev/zero", "/dev/stdin"):
        caught: list[BaseException] = []

        def attempt(name=name, caught=caught):
            try:
                read_source(name, limits=SMALL)
            except BaseException as error:
                caught.append(error)

        thread = threading.Thread(target=attempt, daemon=True)
        thread.start()
        thread.join(5)
        assert not thread.is_alive(), f"{name} blocks"
        if str(name) == "/dev/stdin" and not isinstance(caught[0], UnreadableMediaError):
            continue  # a regular file may stand there
        assert isinstance(caught[0], UnreadableMediaError), name
        assert "not a file" in str(caught[0]) or "cannot be opened" in str(caught[0])


def test_links_to_files_are_followed(tmp_path):
    (tmp_path / "f").write_bytes(b"1")
    (tmp_path / "link").symlink_to("f")
    assert read_source(tmp_path / "link", limits=SMALL) == b"1"


def test_empty_sources_and_text_are_named(tmp_path):
    (tmp_path / "f").write_bytes(b"")
    for source in (tmp_path / "f", b"", io.BytesIO(b"")):
        with pytest.raises(UnreadableMediaError, match="is empty"):
            read_source(source, limits=SMALL)
    with open(tmp_path / "f") as text, pytest.raises(ArgumentError, match="binary mode"):
        read_source(text, limits=SMALL)


def test_messages_hide_passwords_and_stay_short():
    assert describe("https://user:secret@host/x.png") == "'https://***@host/x.png'"
    assert len(describe("x" * 5000)) < 130
    assert describe(b"abc") == "the data given (3 bytes)"
    assert words(3 << 20) == "3.0 MiB"


@pytest.mark.parametrize("name", ["max_bytes", "total_seconds", "max_frames"])
@pytest.mark.parametrize("value", [0, -1])
def test_limits_must_be_positive(name, value):
    with pytest.raises(ValueError, match=name):
        Limits(**{name: value})
