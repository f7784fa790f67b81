"""Container: frames encoded with PyAV into a file object, as they arrive.

Given an encoder's name and options; used by the writers of video formats. It knows neither names of files nor moving
into place, and lets FFmpeg see no name at all, so that none of its patterns and addresses can be reached.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, BinaryIO

import av
import numpy as np

from i2vgen_ms.media.writers.part import Frame, Picture

# (matrix of the conversion, H.273 code of it, of the primaries and of the transfer curve)
_SD = ("smpte170m", 6, 6, 6)
_HD = ("itu709", 1, 1, 1)
_LIMITED_RANGE = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """One encoder in one container, in FFmpeg's words.

    `even`: the encoder takes even sizes only; a last row or column is repeated where needed.
    """

    format: str
    codec: str
    pixel_format: str
    threads: int
    codec_options: Mapping[str, str]
    container_options: Mapping[str, str] = field(default_factory=dict)
    even: bool = False


class ContainerSink:
    """Takes frames and muxes packets into `file`."""

    def __init__(self, file: BinaryIO, what: Picture, encoding: Encoding) -> None:
        self._encoding = encoding
        self._pad = (what.height % 2, what.width % 2) if encoding.even else (0, 0)
        self._count, self._fps = 0, what.fps
        width, height = what.width + self._pad[1], what.height + self._pad[0]
        self._matrix, matrix, primaries, curve = _HD if width >= 1280 or height >= 720 else _SD
        self._file = _Shield(file)
        self._audio = what.audio
        # Sound may start a little before the picture; Matroska would delay the picture to begin at 0.
        early = {"avoid_negative_ts": "disabled"} if what.audio is not None else {}
        self._container: Any = av.open(
            self._file,
            "w",
            format=encoding.format,
            # bitexact: no version numbers, dates and random identifiers
            options={"fflags": "+bitexact", **early, **encoding.container_options},
            io_open=lambda url, flags, options: _SecondReader(self._file),
        )
        try:
            self._container.metadata.update(what.metadata)
            stream: Any = self._container.add_stream(
                encoding.codec, rate=what.fps, options={"flags": "+bitexact", **encoding.codec_options}
            )
            stream.width, stream.height, stream.pix_fmt = width, height, encoding.pixel_format
            context = stream.codec_context
            context.thread_count = encoding.threads
            context.color_range, context.colorspace = _LIMITED_RANGE, matrix
            context.color_primaries, context.color_trc = primaries, curve
            self._stream = stream
            self._track = None if what.audio is None else what.audio.add_to(self._container)
            self._sent = 0
        except BaseException:
            self.abort()
            raise

    def write(self, frame: Frame) -> None:
        """Encodes one frame."""
        if any(self._pad):
            frame = np.pad(frame, ((0, self._pad[0]), (0, self._pad[1]), (0, 0)), mode="edge")
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        # threads: the conversion takes one a core otherwise
        picture = picture.reformat(
            format=self._encoding.pixel_format,
            dst_colorspace=self._matrix,
            dst_color_range=_LIMITED_RANGE,
            interpolation="BICUBIC",
            threads=self._encoding.threads,
        )
        picture.pts = self._count
        self._count += 1
        self._mux(self._stream.encode(picture))
        self._file.check()

    def finish(self) -> None:
        """Encodes what the encoder still holds and completes the file."""
        self._mux(self._stream.encode(None))
        self._mux_audio(self._count / self._fps, last=True)
        self._container.close()
        self._file.check()

    def _mux(self, packets: list[Any]) -> None:
        for packet in packets:
            self._mux_audio(packet.dts * packet.time_base)
            self._container.mux(packet)

    def _mux_audio(self, seconds: Fraction, last: bool = False) -> None:
        """The packets that end by then; if they are the `last` ones, those that start before then, the last one cut.

        So sound and picture lie side by side in the file, and the sound never goes on after the picture.
        """
        if self._audio is None:
            return
        time_base = self._audio.time_base
        for packet in self._audio.packets[self._sent :]:
            if (packet.start + (0 if last else packet.duration)) * time_base >= seconds:
                return
            self._container.mux(self._audio.encoded(packet, self._track, seconds if last else None))
            self._sent += 1

    def abort(self) -> None:
        """Closes the container, whatever state it is in."""
        with contextlib.suppress(Exception):
            self._container.close()


class _Shield:
    """Passes everything on to a file until that fails; from then on it takes anything, and `check` raises the failure.

    FFmpeg goes on writing while it closes. Errors that it meets there would reach nobody but the terminal.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._target = file
        self._failure: OSError | None = None

    def check(self) -> None:
        """Raises what went wrong, if anything did."""
        if self._failure is not None:
            raise self._failure

    def _guarded(self, operation: Callable[[], Any], otherwise: Any) -> Any:
        if self._failure is None:
            try:
                return operation()
            except OSError as error:
                self._failure = error
        return otherwise

    def write(self, data: bytes) -> int:
        """Bytes taken."""
        return int(self._guarded(lambda: self._target.write(data), len(data)))

    def read(self, size: int = -1) -> bytes:
        """Bytes read."""
        return bytes(self._guarded(lambda: self._target.read(size), b""))

    def seek(self, offset: int, whence: int = 0) -> int:
        """The new position."""
        return int(self._guarded(lambda: self._target.seek(offset, whence), 0))

    def tell(self) -> int:
        """The position."""
        return int(self._guarded(self._target.tell, 0))


class _SecondReader(io.RawIOBase):
    """The same file once more, for reading: the mp4 muxer needs it while it moves its index to the front.

    It has its own position and gives the file's back after each read, so no name has to be opened a second time.
    """

    def __init__(self, file: _Shield) -> None:
        self._file, self._position = file, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = 0) -> int:
        with self._held():
            self._file.seek(self._position)
            self._position = self._file.seek(offset, whence)
        return self._position

    def read(self, size: int = -1) -> bytes:
        with self._held():
            self._file.seek(self._position)
            data = self._file.read(size)
        self._position += len(data)
        return data

    @contextlib.contextmanager
    def _held(self) -> Iterator[None]:
        position = self._file.tell()
        try:
            yield
        finally:
            self._file.seek(position)
