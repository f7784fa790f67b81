"""Progress of a run: events to a callable that may cancel, or a bar on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from i2vgen_ms.errors import ArgumentError, Cancelled


@dataclass(frozen=True)
class Progress:
    """One event: `step` of `total` of a stage (`sampling`, `decoding`) is done.

    latents: the clean latents `b c f h w` as the sampler sees them now, for previews; only while sampling.
    decode: makes what `preview` returns of latents, frames and side.
    """

    stage: str
    step: int
    total: int
    latents: Tensor | None = None
    decode: Callable[[Tensor, int, int], npt.NDArray[np.uint8]] | None = None

    def preview(self, frames: int = 4, side: int = 512) -> npt.NDArray[np.uint8] | None:
        """What the latents look like: uint8 `f h w 3` of at most that many evenly spaced frames of the first video.

        No side has many more pixels than `side`: what is larger is decoded small. None while there are no latents.
        It costs about what decoding these frames costs, at once, on the device of the run; the run's result stays the
        same. Raises: OutOfMemoryError where there is no room for it; NonFiniteError.
        """
        if self.latents is None or self.decode is None:
            return None
        return self.decode(self.latents, frames, side)


Callback = Callable[[Progress], Any]


class Reporter(AbstractContextManager["Reporter"]):
    """Sends events where `progress` says.

    Args:
        progress: None: a bar if standard error is a terminal; True or False: a bar or nothing; a callable: called with
            every event, and cancels the run by returning False.
    Raises: Cancelled out of `report`; ArgumentError for anything else than these.
    """

    def __init__(self, progress: bool | Callback | None) -> None:
        if progress is None:
            progress = sys.stderr.isatty()
        if not (isinstance(progress, bool) or callable(progress)):
            raise ArgumentError(f"progress must be True, False or a callable, not {progress!r}")
        self._callback = progress if callable(progress) else None
        self._bar_wanted = progress is True
        self._bar: Any = None
        self._stage = ""

    def report(self, event: Progress) -> None:
        if self._callback is not None and self._callback(event) is False:
            raise Cancelled(f"cancelled by the progress callback at {event.stage} {event.step} of {event.total}")
        if self._bar_wanted:
            self._draw(event)

    def _draw(self, event: Progress) -> None:
        if event.stage != self._stage:
            self._close()
            from tqdm import tqdm

            self._stage = event.stage
            self._bar = tqdm(total=event.total, desc=event.stage, file=sys.stderr)
        self._bar.update(event.step - self._bar.n)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()
