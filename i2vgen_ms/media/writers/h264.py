"""H264: H.264 video in .mp4 or .mkv.

The same frames and settings give the same bytes with the same PyAV on every machine of one architecture: the number of
encoder threads is part of the settings, because it changes what x264 does, and so is the instruction set it uses.
"""

from __future__ import annotations

import platform
from pathlib import Path
from typing import BinaryIO, ClassVar

from i2vgen_ms.errors import ConfigurationError
from i2vgen_ms.media.writers.container import ContainerSink, Encoding
from i2vgen_ms.media.writers.part import Picture, Sink

# x264 takes other decisions with SSE2 than with SSSE3 and later, and with AVX-512 it reads memory that nobody wrote
# (its macroblock tree; PyAV 18.1): every run then gives other bytes. From SSE4.2, which numpy needs as well, to AVX2
# all bytes are equal.
_X86 = ("x86_64", "amd64", "i386", "i686")
_INSTRUCTIONS = "asm=SSE4.2:" if platform.machine().lower() in _X86 else ""
# By default x264 looks 40 frames ahead, and all of a short video would be encoded when its last frame is there. With
# 10 most of it is encoded while frames still come; files get a quarter smaller and the worst frame loses 0.1 dB.
_PARAMETERS = {"x264-params": f"{_INSTRUCTIONS}rc-lookahead=10"}


class H264:
    """H.264 with a constant rate factor (0 best, 51 smallest; 17 looks lossless).

    Players expect `pixel_format` yuv420p, which takes even sizes only: an odd width or height is written one larger,
    with its last column or row repeated. With 'yuv444p' the size is kept.
    """

    suffixes: ClassVar[tuple[str, ...]] = (".mp4", ".mkv")
    carries_audio: ClassVar[bool] = True

    def __init__(
        self, *, crf: int = 17, pixel_format: str = "yuv420p", threads: int = 2, preset: str = "medium"
    ) -> None:
        if not 0 <= crf <= 51:
            raise ConfigurationError(f"writer h264: crf is 0 (best) to 51 (smallest), not {crf}")
        if pixel_format not in ("yuv420p", "yuv444p"):
            raise ConfigurationError(f"writer h264: pixel_format is 'yuv420p' or 'yuv444p', not {pixel_format!r}")
        if threads < 1:
            raise ConfigurationError(f"writer h264: threads must be at least 1, not {threads}")
        self.crf, self.pixel_format, self.threads, self.preset = crf, pixel_format, threads, preset

    def begin(self, place: BinaryIO | Path, what: Picture) -> Sink:
        """A sink into the open file `place`."""
        assert not isinstance(place, Path)
        return ContainerSink(
            place,
            what,
            Encoding(
                format="matroska" if what.suffix == ".mkv" else "mp4",
                codec="libx264",
                pixel_format=self.pixel_format,
                threads=self.threads,
                codec_options={"crf": str(self.crf), "preset": self.preset, **_PARAMETERS},
                # faststart: the index comes first, so that a browser can begin to play
                container_options={} if what.suffix == ".mkv" else {"movflags": "+faststart+use_metadata_tags"},
                even=self.pixel_format == "yuv420p",
            ),
        )
