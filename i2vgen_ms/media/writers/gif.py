"""GIF: an animated picture of 256 colours a frame in .gif, of any size."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, ClassVar

from PIL import Image

from i2vgen_ms.errors import ArgumentError, ConfigurationError
from i2vgen_ms.media.writers.part import Frame, Picture, Sink

_FASTEST = 50  # frames a second; viewers play anything faster at 10


class Gif:
    """Animated GIF that repeats for ever, a palette of `colors` (2 to 256) for each frame.

    GIF counts time in hundredths of a second: frames are alternately longer and shorter so that the whole lasts as long
    as it should. Equal neighbours become one longer frame. At most 50 frames a second.
    """

    suffixes: ClassVar[tuple[str, ...]] = (".gif",)

    def __init__(self, *, colors: int = 256, dither: bool = True) -> None:
        if not 2 <= colors <= 256:
            raise ConfigurationError(f"writer gif: colors is 2 to 256, not {colors}")
        self.colors, self.dither = colors, dither

    def check(self, what: Picture) -> None:
        """Raises ArgumentError for a rate that viewers would not play."""
        if what.fps > _FASTEST:
            raise ArgumentError(
                f"a GIF shows at most {_FASTEST} frames a second, not {float(what.fps):g}; use .mp4 or .webm"
            )

    def begin(self, place: BinaryIO | Path, what: Picture) -> Sink:
        """A sink into the open file `place`."""
        assert not isinstance(place, Path)
        return _GifSink(place, what, self)


class _GifSink:
    def __init__(self, file: BinaryIO, what: Picture, part: Gif) -> None:
        self._file, self._what, self._part = file, what, part
        self._frames: list[Image.Image] = []

    def write(self, frame: Frame) -> None:
        picture = Image.fromarray(frame)
        palette = picture.quantize(self._part.colors, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        if self._part.dither:
            palette = picture.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)
        self._frames.append(palette)

    def finish(self) -> None:
        first, *rest = self._frames
        first.save(
            self._file,
            format="GIF",
            save_all=True,
            append_images=rest,
            duration=durations(len(self._frames), self._what.fps, unit=10),
            loop=0,
            comment=words(self._what.metadata).encode(),
        )

    def abort(self) -> None:
        self._frames.clear()


def durations(count: int, fps: Fraction, *, unit: int) -> list[int]:
    """Milliseconds of each of `count` frames, multiples of `unit`, whose sums never drift from the frame rate.

    >>> durations(4, Fraction(8), unit=10)
    [120, 130, 120, 130]
    """
    ends = [round(1000 * index / fps / unit) * unit for index in range(count + 1)]
    return [later - sooner for sooner, later in itertools.pairwise(ends)]


def words(metadata: Mapping[str, str]) -> str:
    """Metadata as one text: the comment as it is, other keys as `key=value`, one a line."""
    return "\n".join(value if key == "comment" else f"{key}={value}" for key, value in metadata.items())
