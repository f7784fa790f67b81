"""Group C: videos that are none, damaged, far larger than their files, or of an unusual kind."""

from __future__ import annotations

import io
import os
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from i2vgen_ms.errors import I2VGenError, MediaLimitError, UnreadableMediaError
from i2vgen_ms.media.limits import Limits
from i2vgen_ms.media.video import read_video
from i2vgen_ms.pipelines import VideoToVideo
from tests.hostile import bombs, state
from tests.hostile.bombs import film
from tests.hostile.helpers import QUICK, leaves
from tests.media.test_video import rotated
from tests.media.writers.samples import moving, sound

pytestmark = [pytest.mark.hostile, pytest.mark.group("C"), pytest.mark.bounds(seconds=30, rss_mib=800)]

CLIP = moving(frames=9)
NO_VIDEO = "not a video, is damaged, or of a format that is not accepted"
LIMIT = "at most 9437184 are read"


def cut(share: float, container: str = "matroska") -> bytes:
    data = film(CLIP, container=container)
    return data[: int(share * len(data))]


def png() -> bytes:
    file = io.BytesIO()
    Image.fromarray(CLIP[0]).save(file, "PNG")
    return file.getvalue()


def encrypted() -> bytes:
    key = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": "76a6c65c5ea762046bd749a2e632ccbb"}
    return film(CLIP, container_options=key | {"encryption_kid": "a7e61c373e219033c21091fa607bf3b8"})


def grown(data: bytes, width: int, height: int) -> bytes:
    """An mp4 that announces another size than its frames have."""
    entry = data.index(b"avc1", data.index(b"stsd")) + 28
    return data[:entry] + struct.pack(">HH", width, height) + data[entry + 4 :]


REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (bytes, "is empty"),
    "text": (lambda: b"not a video\n" * 50, NO_VIDEO),
    "html": (lambda: b"<!DOCTYPE html><html>404</html>", NO_VIDEO),
    "zeros": (lambda: bytes(5000), NO_VIDEO),
    "png": (png, NO_VIDEO),
    "m3u8": (lambda: b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.mkv\n#EXT-X-ENDLIST\n", NO_VIDEO),
    "ffconcat": (lambda: b"ffconcat version 1.0\nfile 'secret.mkv'\n", NO_VIDEO),
    "sdp": (lambda: b"v=0\no=- 0 0 IN IP4 127.0.0.1\nm=video 9 RTP/AVP 96\na=rtpmap:96 H264/90000\n", NO_VIDEO),
    "dash": (
        lambda: b'<?xml version="1.0"?><MPD><Period><BaseURL>file:///etc/passwd</BaseURL></Period></MPD>',
        NO_VIDEO,
    ),
    "raw h264": (lambda: film(CLIP, container="h264"), NO_VIDEO),
    "mpeg-ts": (lambda: film(CLIP, container="mpegts"), NO_VIDEO),
    "flv": (lambda: film(CLIP, container="flv"), NO_VIDEO),
    "sound alone": (sound, "holds no video, only sound"),
    "zero frames": (bombs.without_frames, "holds no frame that can be decoded|not a video"),
    "mp4 cut at 50 %": (lambda: cut(0.5, "mp4"), NO_VIDEO),
    "mp4 cut at 10 %": (lambda: cut(0.1, "mp4"), NO_VIDEO),
    "mkv cut at 2 %": (lambda: cut(0.02), NO_VIDEO),
    "encrypted": (encrypted, "is damaged|no frame that can be decoded"),
    "8K": (lambda: bombs.large(7680, 4320), "no size of its frames, or more than 9437184 pixels|" + LIMIT),
    "bomb": (lambda: bombs.black(4096, 4096, 64), LIMIT),
    "changes its size": (
        lambda: bombs.spliced(
            film(CLIP, container="avi", codec="mjpeg", pixel="yuvj420p"),
            film(moving(64, 32), container="avi", codec="mjpeg", pixel="yuvj420p"),
        ),
        "changes its size from 48x32 to 64x32 on the way",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_it_is_refused_before_any_work(
    second: VideoToVideo, tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, words = REFUSED[what]
    monkeypatch.chdir(tmp_path)
    Path("secret.mkv").write_bytes(film(CLIP, container="matroska"))
    Path("clip.mp4").write_bytes(make())
    resident = state.forget_peak()  # making it takes more than refusing it may
    with leaves(tmp_path), pytest.raises((UnreadableMediaError, MediaLimitError), match=words) as caught:
        second(tmp_path / "clip.mp4", output=tmp_path / "out.mp4", max_frames=32, **QUICK)
    assert state.peak_mib() - resident < 100
    assert "clip.mp4" in str(caught.value)
    assert len(str(caught.value)) < 600


NAMES = (
    *("concat:secret.mkv|secret.mkv", "lavfi:testsrc", "subfile:,start,0,end,9,,:secret.mkv", "file:secret.mkv"),
    *("image%02d.png", "image*.png", "0", "/dev/video0", "/dev/zero", "-", "pipe:0", "async:secret.mkv", "."),
    *("crypto:secret.mkv", "data:video/mp4;base64,AAAA", "rtmp://127.0.0.1/x", "ftp://127.0.0.1/x", "cache:secret.mkv"),
    *("udp://127.0.0.1:1", "tcp://127.0.0.1:1?listen", "tee:secret.mkv", "gopher://127.0.0.1/x", "file:///etc/passwd"),
)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_the_name_of_a_file_and_nothing_else(
    second: VideoToVideo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("secret.mkv").write_bytes(film(CLIP, container="matroska"))
    for index in range(3):
        Image.fromarray(CLIP[index]).save(f"image{index:02d}.png")
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("something was connected to"))
    with (
        leaves(tmp_path),
        pytest.raises(UnreadableMediaError, match=r"cannot be opened|are not read|not a file|is empty"),
    ):
        second(name, output="out.mp4", **QUICK)


@pytest.mark.parametrize("count", [1, 31, 32, 33])
def test_as_many_frames_as_are_wanted_are_read(count: int) -> None:
    clip = read_video(film(moving(frames=count)), max_frames=32)
    assert clip.count == min(count, 32)
    assert (clip.truncated, clip.left_out) == (count > 32, max(0, count - 32))


def alpha() -> bytes:
    frames = np.concatenate([CLIP, np.full((*CLIP.shape[:3], 1), 128, np.uint8)], axis=3)
    return film(frames, container="mov", codec="qtrle", pixel="argb")


def nan_duration() -> bytes:
    data = film(CLIP, container="matroska")
    place = data.index(b"\x44\x89\x88") + 3  # Duration, a double
    return data[:place] + struct.pack(">d", float("nan")) + data[place + 8 :]


UNUSUAL: dict[str, tuple[Callable[[], bytes], tuple[int, int, int]]] = {
    "odd sizes": (lambda: film(moving(47, 31), pixel="yuv444p"), (6, 31, 47)),
    "10 bits": (lambda: film(CLIP, pixel="yuv420p10le"), (9, 32, 48)),
    "12 bits 444": (lambda: film(CLIP, codec="ffv1", container="matroska", pixel="yuv444p12le"), (9, 32, 48)),
    "alpha": (alpha, (9, 32, 48)),
    "rotated by 90": (lambda: rotated(film(CLIP), 1), (9, 48, 32)),
    "rotated by 180": (lambda: rotated(film(CLIP), 2), (9, 32, 48)),
    "variable rate": (lambda: film(CLIP, codec="mpeg4", times=[0, 1, 5, 6, 7, 20, 21, 22, 40]), (9, 32, 48)),
    "120 a second": (lambda: film(CLIP, rate=120), (9, 32, 48)),
    "interlaced": (
        lambda: film(CLIP, codec="mpeg2video", container="matroska", options={"flags": "+ildct+ilme"}),
        (9, 32, 48),
    ),
    "negative times": (lambda: bombs.early(film(CLIP)), (9, 32, 48)),
    "gif": (lambda: film(CLIP, codec="gif", container="gif", pixel="rgb8"), (9, 32, 48)),
    "webm": (lambda: film(CLIP, codec="libvpx-vp9", container="webm"), (9, 32, 48)),
    "an attachment": (lambda: film(CLIP, container="matroska", attachment=b"#!/bin/sh\ntouch PWNED\n"), (9, 32, 48)),
    "a duration that is no number": (nan_duration, (9, 32, 48)),
    "a header of 60000 x 60000": (lambda: grown(film(CLIP), 60000, 60000), (9, 32, 48)),
    "10 hours": (lambda: bombs.black(32, 32, 36_000, rate=1), (9, 32, 32)),
    "an hour between two frames": (lambda: bombs.black(32, 32, 9, step=90_000), (9, 32, 32)),
}


@pytest.mark.filterwarnings("ignore:left out")
@pytest.mark.parametrize("what", UNUSUAL)
def test_unusual_videos_are_read_upright(second: VideoToVideo, tmp_path: Path, what: str) -> None:
    make, shape = UNUSUAL[what]
    (tmp_path / "clip.dat").write_bytes(data := make())  # the name does not matter
    begun = time.monotonic()
    with leaves(tmp_path):
        clip = read_video(tmp_path / "clip.dat", max_frames=9)
    assert clip.frames.shape == (*shape, 3)
    assert time.monotonic() - begun < 5
    if "rotated" not in what and shape[1:] == (32, 48):
        assert np.abs(clip.frames.astype(int) - CLIP).mean() < 25
    assert second(data, output_type="frames", max_frames=shape[0], **QUICK).frames.shape[0] == shape[0]


@pytest.mark.parametrize("where", [0.3, 0.5, 0.8])
def test_damage_in_the_middle_gives_frames_or_a_typed_error(where: float) -> None:
    data = bytearray(film(moving(frames=33), container="matroska"))
    place = int(where * len(data))
    data[place : place + 40] = os.urandom(40)
    try:
        clip = read_video(bytes(data), max_frames=32)
    except UnreadableMediaError as error:
        words = str(error)
        assert "damaged" in words
    else:
        assert 1 <= clip.count <= 32


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_a_file_that_breaks_off_gives_what_is_there_or_a_typed_error(share: float) -> None:
    data = film(moving(frames=33), container="matroska")
    try:
        clip = read_video(data[: int(share * len(data))], max_frames=33)
    except UnreadableMediaError:
        assert share <= 0.5
    else:
        assert 1 <= clip.count < 33


@pytest.mark.parametrize("container", ["mp4", "matroska"])
def test_gigabytes_in_a_small_file_are_refused_before_they_are_decoded(container: str) -> None:
    """60 kB that are 17 GB of pixels; no frame is larger than what is allowed."""
    data = bombs.black(4096, 2304, 600, container=container)
    assert len(data) < 100_000
    begun, resident = time.monotonic(), state.forget_peak()
    with pytest.raises(MediaLimitError, match=r"57 frames of 4096x2304 take more than 1536\.0 MiB; read fewer"):
        read_video(data, max_frames=600)
    assert time.monotonic() - begun < 2
    assert state.peak_mib() - resident < 150  # one frame of it
    assert read_video(data, max_frames=2).count == 2


def test_the_time_for_decoding_is_bounded() -> None:
    # A short time: a fast machine decodes, and keeps until then, hundreds of such frames a second.
    with pytest.raises(MediaLimitError, match=r"more than 0\.05 seconds to decode"):
        read_video(bombs.black(1920, 1080, 4096), max_frames=200, limits=Limits(decode_seconds=0.05))


def test_bytes_are_counted_before_they_are_read(tmp_path: Path) -> None:
    with open(tmp_path / "sparse.mp4", "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(MediaLimitError, match=r"1048576\.0 MiB; at most 1024\.0 MiB"):
        read_video(tmp_path / "sparse.mp4", max_frames=9)


def test_a_flipped_bit_anywhere_gives_frames_or_a_typed_error() -> None:
    dice = np.random.default_rng(0)
    outcomes: dict[Any, int] = {}
    for container in ("mp4", "matroska", "avi", "gif"):
        codec, pixel = ("gif", "rgb8") if container == "gif" else ("mpeg4", "yuv420p")
        good = film(CLIP, container=container, codec=codec, pixel=pixel)
        for _ in range(60):
            data = bytearray(good)
            data[dice.integers(len(data))] ^= 1 << int(dice.integers(8))
            try:
                kind: Any = read_video(bytes(data), max_frames=9, limits=Limits(max_video_pixels=10**6)).frames.dtype
            except I2VGenError as error:
                kind = type(error)
            outcomes[kind] = outcomes.get(kind, 0) + 1
    assert set(outcomes) <= {np.dtype(np.uint8), UnreadableMediaError, MediaLimitError}
    assert outcomes[np.dtype(np.uint8)] > 100
