"""Part: what every writer offers, so that a file format is one class and one name.

A part holds a format's settings; `begin` gives a sink that takes frames. Neither knows where the bytes go to in the
end, nor what happens when something fails: that is the output's business.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, ClassVar, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from i2vgen_ms.media.audio import Audio

Frame = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """What is written: pixels, frames a second, and words for the file (for example {'comment': 'seed=5'}).

    `suffix` is the name's, with its dot, in lower case; '' for a folder. `audio`: encoded sound to carry along; only
    given to parts that say `carries_audio`, and only what their kind of file can hold.
    """

    width: int
    height: int
    fps: Fraction
    suffix: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    audio: Audio | None = None


class Sink(Protocol):
    """Takes frames one after another."""

    def write(self, frame: Frame) -> None:
        """One frame, uint8 `h w 3` RGB of the announced size."""

    def finish(self) -> None:
        """After the last frame: completes the file. It does not close what `begin` was given."""

    def abort(self) -> None:
        """Instead of `finish`: lets everything go. Never raises."""


@runtime_checkable
class WriterPart(Protocol):
    """A file format with its settings.

    `suffixes` are the names' ends that it writes; ('',) for a part that fills a folder. The first one is meant when
    no name is given. A part may also have `check(what: Picture)`, which raises ArgumentError for a size or a rate that
    the format cannot have; it is called before the heavy work. A part that puts `Picture.audio` into its files has a
    true `carries_audio`.
    """

    suffixes: ClassVar[tuple[str, ...]]

    def begin(self, place: BinaryIO | Path, what: Picture) -> Sink:
        """Starts a file in the open, empty, seekable file `place`; a folder part gets the path of an empty folder."""
