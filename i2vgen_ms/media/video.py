"""Video: a clip's frames, as uint8 `f h w 3` RGB, with PyAV.

Given a path, an http(s) address, bytes or a file object. It does not know what the frames are for.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt

from i2vgen_ms.errors import ArgumentError, I2VGenError, MediaLimitError, OutOfMemoryError, UnreadableMediaError
from i2vgen_ms.media.clip import Clip
from i2vgen_ms.media.demuxer import open_container
from i2vgen_ms.media.limits import Limits, words
from i2vgen_ms.media.source import describe, open_source

if TYPE_CHECKING:
    from i2vgen_ms.media.audio import Audio

Frame = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoInfo:
    """What the file says about itself, before anything is decoded.

    `width`, `height` as shown (rotation applied). `fps` frames a second; None when the file does not say.
    `frames` as announced; 0 when the file does not say. `metadata` with keys in lower case.
    """

    width: int
    height: int
    fps: Fraction | None
    frames: int
    has_audio: bool
    metadata: dict[str, str]


class Video:
    """An open video: `info` is there at once, iterating decodes frame by frame (once).

    is_key: whether the frame that was decoded last needs none before it.
    """

    def __init__(self, container: Any, file: BinaryIO, name: str, limits: Limits, threads: int) -> None:
        self._container, self._file, self.name, self._limits = container, file, name, limits
        streams = container.streams.video
        if not streams:
            raise UnreadableMediaError(f"{name} holds no video" + (", only sound" if container.streams.audio else ""))
        self._stream = stream = streams[0]
        context = stream.codec_context
        if context is None:
            raise UnreadableMediaError(f"{name}: its video codec is unknown")
        self._check_size(context.width, context.height)
        context.thread_count = threads
        # A frame inside may announce another size than the file does: the decoder refuses it before it takes memory.
        context.options = {"max_pixels": str(limits.max_video_pixels)}
        self._times: list[Fraction | None] = []
        self.is_key = False
        self._frames = self._decode()
        self._first = next(self._frames, None)
        if self._first is None:
            raise UnreadableMediaError(f"{name} holds no frame that can be decoded")
        self._begin = self._times[0]
        self.info = VideoInfo(
            width=self._first.shape[1],
            height=self._first.shape[0],
            fps=_rate(container, stream),
            frames=max(0, stream.frames),
            has_audio=bool(container.streams.audio),
            metadata={key.lower(): value for key, value in container.metadata.items()},
        )

    def __iter__(self) -> Iterator[Frame]:
        if self._first is not None:
            first, self._first = self._first, None
            yield first
        yield from self._frames

    @property
    def time(self) -> Fraction | None:
        """When the frame that was decoded last is shown, in seconds after the first one; None if it does not say."""
        shown = self._times[-1] if self._times else None
        return None if shown is None or self._begin is None else shown - self._begin

    def jump(self, seconds: Fraction) -> bool:
        """Goes on decoding at a key frame, as a rule the last one up to so many seconds after the first frame.

        Which frame comes next is seen by `time`; what is shown before the next one that `is_key` may be damaged.
        Returns whether the file can be jumped in; if not, nothing can be decoded afterwards.
        """
        if self._begin is None or self._container.format.name == "gif":  # whose frames are changes of those before
            return False
        try:
            place = int((self._begin + seconds) / self._stream.time_base)
            self._container.seek(place, stream=self._stream, backward=True)
        except Exception:  # what FFmpeg says of files that have no index
            return False
        self._first, self._times, self._frames = None, [], self._decode()
        return True

    def left_out(self, taken: int) -> int | None:
        """How many frames there are after the first `taken`, without decoding them; None when that takes too long
        or they are damaged.

        It reads the file once more, so nothing can be decoded afterwards.
        """
        end = time.monotonic() + self._limits.decode_seconds
        count = 0
        try:
            with open_container(self._file, self.name, self._limits) as container:
                for packet in container.demux(container.streams.video[0]):
                    if time.monotonic() > end:
                        return None
                    # A packet to discard is outside the part that the file shows; an empty one marks the end.
                    count += packet.size > 0 and not packet.is_discard
        except Exception:  # damage behind the frames that were read does them no harm
            return None
        return max(1, count - taken)

    def holds_more_than(self, count: int) -> bool:
        """Whether there are more frames than that: as announced, else counted without decoding any."""
        if self.info.frames:
            return self.info.frames > count
        end, position = time.monotonic() + self._limits.decode_seconds, self._file.tell()
        try:
            with open_container(self._file, self.name, self._limits) as container:
                for packet in container.demux(container.streams.video[0]):
                    count -= packet.size > 0 and not packet.is_discard
                    if count < 0 or time.monotonic() > end:
                        return count < 0
        except Exception:  # decoding will come to the damage, or will not
            return False
        finally:
            self._file.seek(position)  # where the open container believes to be
        return False

    def audio(self, taken: int) -> Audio | str:
        """The sound of the first `taken` frames, or why it cannot be used; reads the file once more as `left_out`."""
        if self.info.fps is None:
            return "the file does not say its frame rate"
        from i2vgen_ms.media.audio import MOST_APART, read_audio

        times = [(index, shown) for index, shown in enumerate(self._times[:taken]) if shown is not None]
        start = times[0][1] - times[0][0] / self.info.fps if times else Fraction(0)
        apart = max((abs(shown - start - index / self.info.fps) for index, shown in times), default=Fraction(0))
        if apart > max(MOST_APART, 1 / self.info.fps):
            return f"the frame rate varies, and at an even one sound and picture would be {float(apart):.2f} s apart"
        seconds = taken / self.info.fps
        return read_audio(self._file, self.name, start=start, seconds=seconds, limits=self._limits)

    def _check_size(self, width: int, height: int) -> None:
        if width < 1 or height < 1:
            # FFmpeg, told the most pixels, forgets a size that is larger.
            raise UnreadableMediaError(
                f"{self.name} announces no size of its frames, or more than {self._limits.max_video_pixels} pixels, "
                "the most that are read"
            )
        if width * height > self._limits.max_video_pixels:
            raise MediaLimitError(
                f"{self.name} has frames of {width}x{height} = {width * height} pixels; "
                f"at most {self._limits.max_video_pixels} are read"
            )

    def _decode(self) -> Iterator[Frame]:
        spent, shape = 0.0, None
        begun = time.monotonic()
        try:
            for frame in self._container.decode(self._stream):
                # Only time in here counts, not what the caller does between two frames.
                if spent + time.monotonic() - begun > self._limits.decode_seconds:
                    raise MediaLimitError(
                        f"{self.name} took more than {self._limits.decode_seconds:g} seconds to decode"
                    )
                self._check_size(frame.width, frame.height)
                pixels = _upright(frame.to_ndarray(format="rgb24"), frame.rotation)
                if shape is not None and pixels.shape != shape:
                    raise UnreadableMediaError(
                        f"{self.name} changes its size from {shape[1]}x{shape[0]} to "
                        f"{pixels.shape[1]}x{pixels.shape[0]} on the way"
                    )
                shape = pixels.shape
                self._times.append(None if frame.pts is None else frame.pts * frame.time_base)
                self.is_key = bool(frame.key_frame)
                spent += time.monotonic() - begun
                yield pixels
                begun = time.monotonic()
        except I2VGenError:
            raise
        except MemoryError as error:
            raise OutOfMemoryError(
                f"out of memory while decoding {self.name}; give a smaller video or fewer frames (max_frames)"
            ) from error
        except Exception as error:
            raise UnreadableMediaError(f"{self.name} is damaged: {error}") from error


@contextmanager
def open_video(source: Any, *, limits: Limits | None = None, threads: int = 2) -> Iterator[Video]:
    """An open video, for use with `with`; mp4, mov, mkv, webm, avi or gif. Only its first frame is decoded yet.

    Raises UnreadableMediaError (missing, damaged, another format, no frames) and MediaLimitError, here or while
    iterating.
    """
    limits = limits or Limits()
    name = describe(source)
    with (
        open_source(source, limits=limits, max_bytes=limits.max_video_bytes) as file,
        open_container(file, name, limits) as container,
    ):
        yield Video(container, file, name, limits, threads)


def read_video(source: Any, *, max_frames: int, limits: Limits | None = None, threads: int = 2) -> Clip:
    """The first `max_frames` frames of a video, uint8, rotated as the file asks for.

    Raises what `open_video` does, MediaLimitError also when these frames together would take more memory than
    `limits.max_clip_bytes`, and ArgumentError when `max_frames` is not 1 to `limits.max_frames`.
    """
    limits = limits or Limits()
    if not 1 <= max_frames <= limits.max_frames:
        raise ArgumentError(f"max_frames is 1 to {limits.max_frames}, not {max_frames}")
    with open_video(source, limits=limits, threads=threads) as video:
        frames, truncated = _collected(video, max_frames, limits)
        left_out = video.left_out(len(frames)) if truncated else 0
        audio = video.audio(len(frames)) if video.info.has_audio else ""
        return Clip(
            frames=frames,
            fps=video.info.fps,
            truncated=truncated,
            left_out=left_out,
            audio=None if isinstance(audio, str) else audio,
            audio_problem=audio if isinstance(audio, str) else "",
            info=video.info,
        )


def _collected(video: Video, max_frames: int, limits: Limits) -> tuple[Frame, bool]:
    """At most `max_frames` frames, and whether there are more."""
    height, width = video.info.height, video.info.width
    room = min(max_frames, limits.max_clip_bytes // (3 * width * height))
    if room < max_frames and video.holds_more_than(room):
        raise _too_much(video, room + 1, limits)  # a small file may take gigabytes: found out before they are taken
    # Reserved at once and filled on the way: a list that is joined at the end would need the memory twice.
    frames = np.empty((room, height, width, 3), np.uint8)
    count = 0
    for frame in video:
        if count == max_frames:
            return frames, True
        if count == room:
            raise _too_much(video, count + 1, limits)
        frames[count] = frame
        count += 1
    return frames[:count], False


def _too_much(video: Video, count: int, limits: Limits) -> MediaLimitError:
    return MediaLimitError(
        f"{video.name}: {count} frames of {video.info.width}x{video.info.height} take more than "
        f"{words(limits.max_clip_bytes)}; read fewer (max_frames) or a smaller video"
    )


def _rate(container: Any, stream: Any) -> Fraction | None:
    # FFmpeg also guesses, and for one or two frames without a rate guesses the clock's ticks, 1000 a second.
    rate = stream.average_rate
    if container.format.name == "gif" and stream.frames and stream.duration:
        # Its times are hundredths of a second: single frames are off, all together are not.
        rate = stream.frames / (stream.duration * stream.time_base)
    return Fraction(rate) if rate and rate > 0 else None


def _upright(pixels: Frame, rotation: int) -> Frame:
    """`rotation` degrees against the clock, as the file's display matrix says; only quarter turns are applied."""
    turns = round(rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels
