"""WebP: an animated picture in .webp, of any size."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO, ClassVar

from PIL import Image

from i2vgen_ms.errors import ConfigurationError
from i2vgen_ms.media.writers.gif import durations, words
from i2vgen_ms.media.writers.part import Frame, Picture, Sink

_IMAGE_DESCRIPTION = 0x010E


class WebP:
    """Animated WebP that repeats for ever; `quality` 0 (smallest) to 100, or `lossless`.

    The format has no comments: metadata are stored as EXIF ImageDescription, one a line. Frames are kept in memory
    until the end. Equal neighbours become one longer frame.
    """

    suffixes: ClassVar[tuple[str, ...]] = (".webp",)

    def __init__(self, *, quality: int = 90, lossless: bool = False, method: int = 4) -> None:
        if not 0 <= quality <= 100:
            raise ConfigurationError(f"writer webp: quality is 0 (smallest) to 100 (best), not {quality}")
        if not 0 <= method <= 6:
            raise ConfigurationError(f"writer webp: method is 0 (fast) to 6 (small), not {method}")
        self.quality, self.lossless, self.method = quality, lossless, method

    def begin(self, place: BinaryIO | Path, what: Picture) -> Sink:
        """A sink into the open file `place`."""
        assert not isinstance(place, Path)
        return _WebPSink(place, what, self)


class _WebPSink:
    def __init__(self, file: BinaryIO, what: Picture, part: WebP) -> None:
        self._file, self._what, self._part = file, what, part
        self._frames: list[Image.Image] = []

    def write(self, frame: Frame) -> None:
        self._frames.append(Image.fromarray(frame))

    def finish(self) -> None:
        first, *rest = self._frames
        description = Image.Exif()
        if self._what.metadata:
            description[_IMAGE_DESCRIPTION] = words(self._what.metadata).encode()
        first.save(
            self._file,
            format="WEBP",
            save_all=True,
            append_images=rest,
            duration=durations(len(self._frames), self._what.fps, unit=1),
            loop=0,
            quality=self._part.quality,
            lossless=self._part.lossless,
            method=self._part.method,
            exif=description,
        )

    def abort(self) -> None:
        self._frames.clear()
