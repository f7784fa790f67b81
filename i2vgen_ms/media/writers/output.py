"""Output: a video on its way to its place, frame by frame, complete or not at all.

Given a name, sizes and a format's settings; used with `with`. It knows neither networks nor how a format is encoded.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from i2vgen_ms.errors import (
    ArgumentError,
    ConfigurationError,
    I2VGenError,
    OutOfMemoryError,
    OutputError,
    nearest,
)
from i2vgen_ms.media.writers.part import Frame, Picture, Sink, WriterPart
from i2vgen_ms.media.writers.target import FileTarget, MemoryTarget, Target, as_folder

if TYPE_CHECKING:
    from i2vgen_ms.media.audio import Audio

# Encoders refuse larger ones anyway, each with words of its own.
_LARGEST_SIDE = 16384


def _h264() -> type[WriterPart]:
    from i2vgen_ms.media.writers.h264 import H264

    return H264


def _webm() -> type[WriterPart]:
    from i2vgen_ms.media.writers.webm import WebM

    return WebM


def _gif() -> type[WriterPart]:
    from i2vgen_ms.media.writers.gif import Gif

    return Gif


def _webp() -> type[WriterPart]:
    from i2vgen_ms.media.writers.webp import WebP

    return WebP


def _png_folder() -> type[WriterPart]:
    from i2vgen_ms.media.writers.png_folder import PngFolder

    return PngFolder


# Names as in the catalogue's slot `writers`; each module is imported when its suffix is asked for.
_PARTS: dict[str, Callable[[], type[WriterPart]]] = {
    "h264": _h264,
    "webm": _webm,
    "gif": _gif,
    "webp": _webp,
    "png-folder": _png_folder,
}
_BY_SUFFIX = {".mp4": "h264", ".mkv": "h264", ".webm": "webm", ".gif": "gif", ".webp": "webp", "": "png-folder"}
SUFFIXES = tuple(suffix for suffix in _BY_SUFFIX if suffix)


def open_writer(
    target: str | os.PathLike[str] | None,
    *,
    width: int,
    height: int,
    fps: float | Fraction,
    options: Mapping[str, Any] | None = None,
    metadata: Mapping[str, str] | None = None,
    part: WriterPart | None = None,
    audio: Audio | None = None,
) -> Output:
    """A writer for frames of `width` x `height` at `fps` frames a second; call this before the heavy work.

    `target`: a name that ends with .mp4, .mkv, .webm, .gif or .webp; a name without suffix, or with a separator at its
    end, for a folder of PNG files; None for bytes (`getvalue()`), in .mp4. The name is used literally.
    `options`: the settings of one format, {'type': 'h264', 'crf': 17, ...} ('type' left out means h264). They apply
    when the name asks for that format, else that format's own defaults do.
    `part`: a writer built elsewhere, used for the names whose suffix it has (and for None).
    `metadata`: words stored in the file, for example {'comment': 'seed=5'}.
    `audio`: encoded sound that is put into the file as it is, cut to the video's length. Where the format cannot hold
    it, it is left out with an AudioWarning.

    Raises OutputError when the result could not be written there (unknown suffix, missing folder, a folder instead of a
    file, read-only, name too long, a folder with other files in it), ArgumentError for sizes or rates that cannot be,
    ConfigurationError for wrong options. Nothing is left behind, and what stands at `target` is untouched.
    """
    suffix = _suffix(target, part)
    what = Picture(
        width=_side("width", width),
        height=_side("height", height),
        fps=_rate(fps),
        suffix=suffix,
        metadata={str(key): str(value) for key, value in (metadata or {}).items()},
    )
    if part is None or suffix not in part.suffixes:
        part = _built(_BY_SUFFIX[suffix], dict(options or {}))
    check = getattr(part, "check", None)
    if check is not None:
        check(what)
    what = replace(what, audio=_held(audio, part, suffix))
    place = _place(target, suffix)
    place.probe()
    return Output(part, place, what)


def probe(target: str | os.PathLike[str] | None, part: WriterPart | None = None) -> None:
    """Raises OutputError where `open_writer` with this target and `part` would; leaves nothing behind."""
    _place(target, _suffix(target, part)).probe()


class Output:
    """A video being written: `with open_writer(...) as output: output.write(frame)`.

    When the block ends well, the file is completed, written to the disk and moved into place. After any exception the
    temporary file is removed, and what stood there before is as it was.
    """

    def __init__(self, part: WriterPart, place: Target, what: Picture) -> None:
        self._part, self._place, self._what = part, place, what
        self._sink: Sink | None = None
        self._done = False
        self.count = 0

    @property
    def path(self) -> Path | None:
        """Where the result is once the block has ended; None for bytes."""
        return self._place.path

    def getvalue(self) -> bytes:
        """The whole file; only for the target None, and only once the block has ended."""
        if not isinstance(self._place, MemoryTarget):
            raise OutputError(f"the video was written to {str(self.path)!r}, not to memory")
        if not self._done:
            raise OutputError("the video is not complete yet: getvalue() is for after the with block")
        return self._place.file.getvalue()

    def __enter__(self) -> Output:
        try:
            self._sink = self._part.begin(self._place.open(), self._what)
        except BaseException as error:
            self._give_up(error)
            raise
        return self

    def write(self, frame: Frame) -> None:
        """Encodes one frame, uint8 `h w 3` RGB; it may be changed by the caller afterwards.

        Raises ArgumentError for another shape or type, OutputError when the disk or the encoder refuses.
        """
        expected = (self._what.height, self._what.width, 3)
        if not isinstance(frame, np.ndarray) or frame.shape != expected or frame.dtype != np.uint8:
            raise ArgumentError(
                f"a frame is a uint8 array {expected}, not {getattr(frame, 'dtype', type(frame).__name__)} "
                f"{getattr(frame, 'shape', '')}"
            )
        if self._sink is None:
            raise OutputError("frames are written inside the with block")
        try:
            # Sinks may keep the frame, and callers may reuse their array.
            self._sink.write(np.array(frame))
        except I2VGenError:
            raise
        except Exception as error:
            raise self._refusal(error) from error
        self.count += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._give_up(error)
            return
        try:
            if self.count == 0:
                raise OutputError("no frame was written, so there is no video")
            assert self._sink is not None
            self._sink.finish()
            self._sink = None
            self._place.commit()
            self._done = True
        except I2VGenError as failure:
            self._give_up(failure)
            raise
        except Exception as failure:
            self._give_up(failure)
            raise self._refusal(failure) from failure
        except BaseException as failure:
            self._give_up(failure)
            raise

    def _give_up(self, error: BaseException) -> None:
        """Removes what is unfinished; `error` stays the one that is reported."""
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.abort()
        try:
            self._place.discard()
        except OSError as second:
            error.add_note(f"the temporary file beside {str(self.path)!r} could not be removed either: {second}")

    def _refusal(self, error: Exception) -> I2VGenError:
        where = "to memory" if self.path is None else f"to {str(self.path)!r}"
        if isinstance(error, MemoryError):
            return OutOfMemoryError(f"out of memory while writing the video {where}; make it smaller or shorter")
        return OutputError(f"the video could not be written {where}: {type(error).__name__}: {error}")


def _suffix(target: str | os.PathLike[str] | None, part: WriterPart | None) -> str:
    if target is None:
        return part.suffixes[0] if part is not None and part.suffixes[0] else ".mp4"
    if not os.fspath(target):
        raise OutputError("the name of the file to write is empty")
    if as_folder(target):
        return ""
    suffix = os.path.splitext(os.fspath(target))[1].lower()
    known = {*SUFFIXES, *(part.suffixes if part is not None else ())} - {""}
    if suffix not in known:
        raise OutputError(
            f"{os.fspath(target)!r}: no writer for names that end with {suffix!r}; {nearest(suffix, known)}; "
            f"or end the name with {os.sep!r} for a folder of PNG files"
        )
    return suffix


def _held(audio: Audio | None, part: WriterPart, suffix: str) -> Audio | None:
    if audio is None:
        return None
    from i2vgen_ms.media.audio import leave_out, misfit

    problem = misfit(audio, suffix)
    if not problem and not getattr(part, "carries_audio", False):
        problem = f"the writer {type(part).__name__} holds none"
    if not problem:
        return audio
    leave_out(problem, stacklevel=4)
    return None


def _built(name: str, options: dict[str, Any]) -> WriterPart:
    kind = options.pop("type", "h264")
    cls = _PARTS[name]()
    if kind != name:
        return cls()
    try:
        return cls(**options)
    except TypeError as error:
        raise ConfigurationError(f"writer {name}: {error}") from error


def _place(target: str | os.PathLike[str] | None, suffix: str) -> Target:
    if target is None:
        return MemoryTarget()
    if suffix:
        return FileTarget(target)
    from i2vgen_ms.media.writers.png_folder import FolderTarget

    return FolderTarget(target)


def _side(name: str, value: int) -> int:
    if not 1 <= value <= _LARGEST_SIDE:
        raise ArgumentError(f"{name} of a video is 1 to {_LARGEST_SIDE}, not {value}")
    return int(value)


def _rate(fps: float | Fraction) -> Fraction:
    if not 0 < fps <= 1000:  # NaN fails both
        raise ArgumentError(f"fps is more than 0 and at most 1000, not {fps}")
    return Fraction(fps).limit_denominator(1001)
