"""WebM: VP9 video in .webm, of any size."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO, ClassVar

from i2vgen_ms.errors import ConfigurationError
from i2vgen_ms.media.writers.container import ContainerSink, Encoding
from i2vgen_ms.media.writers.part import Picture, Sink


class WebM:
    """VP9 with a constant quality (0 best, 63 smallest); `speed` 0 is slow and small, 5 fast."""

    suffixes: ClassVar[tuple[str, ...]] = (".webm",)
    carries_audio: ClassVar[bool] = True

    def __init__(self, *, crf: int = 18, threads: int = 2, speed: int = 3) -> None:
        if not 0 <= crf <= 63:
            raise ConfigurationError(f"writer webm: crf is 0 (best) to 63 (smallest), not {crf}")
        if threads < 1:
            raise ConfigurationError(f"writer webm: threads must be at least 1, not {threads}")
        if not 0 <= speed <= 5:
            raise ConfigurationError(f"writer webm: speed is 0 to 5, not {speed}")
        self.crf, self.threads, self.speed = crf, threads, speed

    def begin(self, place: BinaryIO | Path, what: Picture) -> Sink:
        """A sink into the open file `place`."""
        assert not isinstance(place, Path)
        options = {"crf": str(self.crf), "b": "0", "deadline": "good", "cpu-used": str(self.speed)}
        encoding = Encoding(
            format="webm", codec="libvpx-vp9", pixel_format="yuv420p", threads=self.threads, codec_options=options
        )
        return ContainerSink(place, what, encoding)
