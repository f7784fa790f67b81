"""Small video files that are many frames, or that are odd in one way: made with PyAV, packet by packet."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any

import av
import numpy as np


def black(width: int, height: int, count: int, *, rate: int = 25, container: str = "mp4", step: int = 1) -> bytes:
    """H.264: one black frame, and `count - 1` times the 28 bytes that say "nothing changed", `step` frames apart."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as out:
        stream = out.add_stream("libx264", rate=rate, options={"preset": "ultrafast", "bf": "0"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        frame = av.VideoFrame(width, height, "yuv420p")
        for plane, level in zip(frame.planes, (16, 128, 128), strict=True):
            plane.update(bytes([level]) * plane.buffer_size)
        packets = []
        for index in range(2):
            frame.pts = index
            packets += stream.encode(frame)
        packets += stream.encode(None)
        base, still = packets[0].time_base, bytes(packets[1])
        apart = step * (packets[1].pts - packets[0].pts)
        packets[0].duration = apart
        out.mux(packets[0])
        for index in range(1, count):
            packet = av.Packet(still)
            packet.stream, packet.time_base = stream, base
            packet.pts = packet.dts = index * apart
            packet.duration = apart
            out.mux(packet)
    return file.getvalue()


def large(width: int, height: int) -> bytes:
    """One black frame of any size, in AVI."""
    file = io.BytesIO()
    with av.open(file, "w", format="avi") as out:
        stream = out.add_stream("mjpeg", rate=8)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuvj420p"
        frame = av.VideoFrame(width, height, "yuvj420p")
        for plane in frame.planes:
            plane.update(bytes([128]) * plane.buffer_size)
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return file.getvalue()


def film(
    frames: np.ndarray,
    *,
    container: str = "mp4",
    codec: str = "libx264",
    pixel: str = "yuv420p",
    rate: int = 8,
    times: Iterable[int] | None = None,
    options: Mapping[str, str] | None = None,
    container_options: Mapping[str, str] | None = None,
    attachment: bytes = b"",
) -> bytes:
    """Frames as a file of any container and codec, shown at `times` (in frames) if they are given."""
    file = io.BytesIO()
    with av.open(file, "w", format=container, options=dict(container_options or {})) as out:
        stream: Any = out.add_stream(codec, rate=rate, options=dict(options or {}))
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], pixel
        if attachment:
            out.add_attachment("evil.sh", "application/x-sh", attachment)
        kind = "rgba" if frames.shape[3] == 4 else "rgb24"
        for frame, shown in zip(frames, times or range(len(frames)), strict=True):
            picture = av.VideoFrame.from_ndarray(frame, format=kind)
            picture.pts, picture.time_base = shown, Fraction(1, rate)
            out.mux(stream.encode(picture))
        out.mux(stream.encode(None))
    return file.getvalue()


def spliced(first: bytes, second: bytes, container: str = "avi") -> bytes:
    """The packets of two files one after the other, as one file that only knows the first one's settings."""
    file = io.BytesIO()
    with av.open(io.BytesIO(first)) as source, av.open(file, "w", format=container) as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        end = 0
        for data in (first, second):
            with av.open(io.BytesIO(data)) as part:
                packets = [packet for packet in part.demux(video=0) if packet.dts is not None]
                for packet in packets:
                    packet.stream = stream
                    packet.pts = packet.dts = end
                    end += 1
                    out.mux(packet)
    return file.getvalue()


def early(data: bytes) -> bytes:
    """The same packets, shown one second earlier than the beginning of the file."""
    file = io.BytesIO()
    options = {"avoid_negative_ts": "disabled"}
    with av.open(io.BytesIO(data)) as source, av.open(file, "w", format="matroska", options=options) as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None and packet.pts is not None:
                second = round(1 / packet.time_base)
                packet.pts, packet.dts = packet.pts - second, packet.dts - second
                packet.stream = stream
                out.mux(packet)
    return file.getvalue()


def without_frames() -> bytes:
    """A video track of which no packet was ever written."""
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as out:
        stream = out.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        out.start_encoding()
    return file.getvalue()
