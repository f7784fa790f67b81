"""Clips are read through file objects only, within limits, upright; no playlist, pattern or device is followed."""

from __future__ import annotations

import io
import struct
import time
from fractions import Fraction

import av
import numpy as np
import pytest

from i2vgen_ms.errors import ArgumentError, MediaError, MediaLimitError, UnreadableMediaError
from i2vgen_ms.media import video as video_module
from i2vgen_ms.media.limits import Limits
from i2vgen_ms.media.video import open_video, read_video
from tests.media.writers.samples import moving, sound, write


@pytest.fixture(scope="module")
def mp4() -> bytes:
    return write(None, moving(frames=9)).getvalue()


def muxed(
    frames: np.ndarray, container: str = "mp4", sound: bool = False, times=None, codec="libx264", pixel="yuv420p"
):
    """A file made with PyAV directly: kinds that this package never writes."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as out:
        stream = out.add_stream(codec, rate=8)
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], pixel
        track = out.add_stream("aac", rate=48000) if sound else None
        for index, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts = times[index] if times else index
            picture.time_base = Fraction(1, 8)
            out.mux(stream.encode(picture))
        out.mux(stream.encode(None))
        if track is not None:
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            silence.sample_rate = 48000
            out.mux(track.encode(silence))
            out.mux(track.encode(None))
    return file.getvalue()


def test_frames_rate_and_words(mp4, tmp_path):
    path = tmp_path / "named like a %03d.png"
    path.write_bytes(mp4)
    for source in (path, str(path), mp4, io.BytesIO(mp4)):
        clip = read_video(source, max_frames=20)
        assert clip.frames.shape == (9, 32, 48, 3)
        assert np.abs(clip.frames.astype(int) - moving(frames=9)).mean() < 4
        assert (clip.fps, clip.has_audio, clip.truncated) == (8, False, False)
        assert (clip.info.width, clip.info.height, clip.info.frames) == (48, 32, 9)


def test_only_the_first_frames_are_taken_and_the_rest_is_mentioned(mp4):
    for count in (1, 5, 8):
        clip = read_video(mp4, max_frames=count)
        assert clip.truncated
        assert np.array_equal(clip.frames, read_video(mp4, max_frames=9).frames[:count])
    assert not read_video(mp4, max_frames=9).truncated


def test_frames_are_decoded_when_they_are_asked_for(mp4, monkeypatch):
    decoded = []
    upright = video_module._upright
    monkeypatch.setattr(video_module, "_upright", lambda *args: decoded.append(1) or upright(*args))
    with open_video(mp4) as video:
        assert len(decoded) == 1
        frames = iter(video)
        next(frames)
        assert len(decoded) == 1
        next(frames)
        assert len(decoded) == 2


@pytest.mark.parametrize(("container", "codec", "pixel"), [("mov", "mpeg4", "yuv420p"), ("avi", "mpeg4", "yuv420p")])
def test_other_containers(container, codec, pixel):
    clip = read_video(muxed(moving(), container, codec=codec, pixel=pixel), max_frames=9)
    assert clip.frames.shape == (6, 32, 48, 3)
    assert clip.fps == 8


def test_ten_bits_444_and_sound():
    clip = read_video(muxed(moving(), sound=True, pixel="yuv444p10le"), max_frames=9)
    assert np.abs(clip.frames.astype(int) - moving()).mean() < 3
    assert clip.has_audio
    assert clip.frames.shape[0] == 6


@pytest.mark.parametrize("frames", [1, 2])
def test_a_guess_is_no_rate(frames):
    file = muxed(moving(frames=frames), "matroska", codec="mjpeg", pixel="yuvj420p")
    rate = file.index(b"\x23\xe3\x83\x84")  # Matroska's DefaultDuration, of four bytes, becomes a Void
    file = file[:rate] + b"\xec\x86" + bytes(6) + file[rate + 8 :]
    clip = read_video(file, max_frames=20)
    assert len(clip.frames) == frames
    assert clip.fps is None


def test_a_variable_rate_is_its_average():
    clip = read_video(muxed(moving(), times=[0, 1, 2, 10, 11, 23], codec="mpeg4"), max_frames=9)
    assert clip.frames.shape[0] == 6
    assert float(clip.fps) == pytest.approx(6 / 3, rel=0.05)


def rotated(data: bytes, turns: int) -> bytes:
    """The display matrix of an mp4's track, turned by 90 degrees `turns` times against the clock."""
    cos, sin = (1, 0, -1, 0)[turns], (0, 1, 0, -1)[turns]
    plain = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30)
    turned = struct.pack(">9i", 65536 * cos, -65536 * sin, 0, 65536 * sin, 65536 * cos, 0, 0, 0, 1 << 30)
    start = data.index(plain, data.index(b"tkhd"))
    return data[:start] + turned + data[start + len(plain) :]


@pytest.mark.parametrize("turns", range(4))
def test_rotation_is_applied(mp4, turns):
    clip = read_video(rotated(mp4, turns), max_frames=9)
    assert np.array_equal(clip.frames, np.rot90(read_video(mp4, max_frames=9).frames, turns, axes=(1, 2)))
    assert (clip.info.height, clip.info.width) == clip.frames.shape[1:3]


SECRET = "secret.mkv"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 100,
        b"not a video",
        b"<!DOCTYPE html><html>404</html>",
        b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.mkv\n#EXT-X-ENDLIST\n",
        b"ffconcat version 1.0\nfile 'secret.mkv'\n",
        b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x80\x3e\0\0\x02\0\x10\0data\0\0\0\0",
        b"\x89PNG\r\n\x1a\n" + b"\0" * 100,
        b"YUV4MPEG2 W4 H4 F8:1\nFRAME\n" + b"\0" * 24,
    ],
)
@pytest.mark.parametrize("suffix", [".mp4", ".m3u8", ".ffconcat"])
def test_other_files_are_refused(data, suffix, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(SECRET, moving())
    path = tmp_path / f"clip{suffix}"
    path.write_bytes(data)
    for source in (path, data):
        with pytest.raises(UnreadableMediaError):
            read_video(source, max_frames=4)


@pytest.mark.parametrize(
    "name",
    ["concat:secret.mkv|secret.mkv", "subfile,,start,0,end,0,,:secret.mkv", "file:secret.mkv", "lavfi:testsrc", "0",
     "secret%d.mkv", "rtsp://127.0.0.1/x", "pipe:0", "testsrc", "missing.mp4"],
)  # fmt: skip
def test_names_are_names_of_files_only(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(SECRET, moving())
    write("secret1.mkv", moving())
    with pytest.raises(UnreadableMediaError, match=r"cannot be opened|are not read"):
        read_video(name, max_frames=4)


def test_sound_alone_is_no_video():
    with pytest.raises(UnreadableMediaError, match="only sound"):
        read_video(io.BytesIO(sound()), max_frames=4)


def test_damaged_files_give_frames_or_a_clear_error(mp4):
    mkv = muxed(moving(), "matroska")
    for data in (mp4, mkv):
        for end in range(0, len(data), max(1, len(data) // 25)):
            try:
                clip = read_video(data[:end], max_frames=9)
            except MediaError:
                continue
            assert 1 <= len(clip.frames) <= 9
        for position in range(0, len(data), max(1, len(data) // 40)):
            broken = bytearray(data)
            broken[position] ^= 0x55
            try:
                read_video(bytes(broken), max_frames=9)
            except MediaError:
                continue


def test_sizes_are_limited_before_decoding(mp4, monkeypatch):
    monkeypatch.setattr(video_module.Video, "_decode", lambda self: pytest.fail("was decoded"))
    with pytest.raises(MediaLimitError, match="48x32"):
        read_video(mp4, max_frames=4, limits=Limits(max_video_pixels=1000))
    with pytest.raises(MediaLimitError, match="at most 100 bytes"):
        read_video(mp4, max_frames=4, limits=Limits(max_video_bytes=100))


def test_a_file_that_lies_about_its_size(mp4):
    entry = mp4.index(b"avc1", mp4.index(b"stsd")) + 28
    assert struct.unpack(">HH", mp4[entry : entry + 4]) == (48, 32)
    small = mp4[:entry] + struct.pack(">HH", 16, 16) + mp4[entry + 4 :]
    with pytest.raises(MediaLimitError, match="pixels"):
        read_video(small, max_frames=4, limits=Limits(max_video_pixels=1000))


def test_memory_and_counts_are_limited(mp4):
    frame = 48 * 32 * 3
    assert len(read_video(mp4, max_frames=3, limits=Limits(max_clip_bytes=3 * frame)).frames) == 3
    with pytest.raises(MediaLimitError, match="4 frames of 48x32"):
        read_video(mp4, max_frames=4, limits=Limits(max_clip_bytes=4 * frame - 1))
    for count in (0, -1, 5000):
        with pytest.raises(ArgumentError, match="1 to 4096"):
            read_video(mp4, max_frames=count)


def test_time_is_limited_but_not_the_callers(mp4, monkeypatch):
    with open_video(mp4, limits=Limits(decode_seconds=0.5)) as video:
        for index, _ in enumerate(video):
            time.sleep(0.2 if index < 3 else 0)
    with pytest.raises(MediaLimitError, match="seconds to decode"):
        read_video(mp4, max_frames=9, limits=Limits(decode_seconds=1e-9))


def test_a_size_that_changes_on_the_way_is_refused():
    first, second = muxed(moving(48, 32), "avi", codec="mjpeg", pixel="yuvj420p"), moving(64, 32)
    file = io.BytesIO()
    with av.open(io.BytesIO(first)) as source, av.open(file, "w", format="avi") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
        with av.open(io.BytesIO(muxed(second, "avi", codec="mjpeg", pixel="yuvj420p"))) as other:
            for index, packet in enumerate(p for p in other.demux(video=0) if p.dts is not None):
                packet.stream = stream
                packet.pts = packet.dts = 6 + index
                out.mux(packet)
    with pytest.raises(UnreadableMediaError, match="48x32 to 64x32"):
        read_video(file, max_frames=20)
