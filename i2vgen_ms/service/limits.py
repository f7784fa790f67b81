"""Limits and settings of a service: what one request may ask for, and how much is kept.

Plain numbers, each of which can be changed; it does not know who checks them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from typing import Any

from i2vgen_ms.media.limits import MEBIBYTE, Limits


def _all_positive(settings: Any) -> None:
    for field in fields(settings):
        value = getattr(settings, field.name)
        if isinstance(value, int | float) and not value > 0:
            raise ValueError(f"{type(settings).__name__}.{field.name} must be positive, not {value!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestLimits:
    """The most that one request may ask for, whether it says so or the model's configuration does.

    `steps`: of the sampler, in each stage. `frames`: of the video, and of a clip that is sent.
    `width`, `height`: of the video, in pixels. `video_pixels`: width times height times frames of the video.
    `guidance_scale`: as a positive or a negative number. `batch_size`: pictures at a time.
    `text`: characters of each text (prompt, negative prompt, suffix).
    `picture_bytes`, `video_bytes`: of what is sent. `picture_pixels`, `clip_pixels`: width times height of a picture,
    and of a frame of a clip. `decode_seconds`: for decoding a clip.

    Raises ValueError for a limit that is not positive.
    """

    steps: int = 100
    frames: int = 64
    width: int = 1920
    height: int = 1088
    video_pixels: int = 64 * 1280 * 720
    guidance_scale: float = 30.0
    batch_size: int = 1
    text: int = 2000
    picture_bytes: int = 16 * MEBIBYTE
    video_bytes: int = 32 * MEBIBYTE
    picture_pixels: int = 32_000_000
    clip_pixels: int = 1920 * 1088
    decode_seconds: float = 30.0

    def __post_init__(self) -> None:
        _all_positive(self)

    @property
    def input_bytes(self) -> int:
        """The most bytes that are sent, whatever they are."""
        return max(self.picture_bytes, self.video_bytes)

    def media(self) -> Limits:
        """How pictures and clips of strangers are read: nothing of this machine or of its network can be named."""
        return Limits(
            max_bytes=self.picture_bytes,
            max_pixels=self.picture_pixels,
            max_video_bytes=self.video_bytes,
            max_video_pixels=self.clip_pixels,
            max_frames=self.frames,
            max_audio_bytes=self.video_bytes,
            decode_seconds=self.decode_seconds,
            urls="none",
            paths=False,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSettings:
    """How a service works.

    `queue`: jobs that wait; one more is refused. `wait_seconds`: how long a job may wait.
    `keep_seconds`, `keep_results`: how long results are kept, and how many of them.
    `folder`: where results are kept, in a folder of the service's own below it; None takes this package's cache folder.
    `preview_frames`, `preview_side`, `preview_seconds`: frames of a preview, pixels of its longer side, and the least
    time between two of them (more where they are slow to make: `preview_share` is how much of the time they may take).

    Raises ValueError for a number that is not positive.
    """

    queue: int = 8
    wait_seconds: float = 900.0
    keep_seconds: float = 3600.0
    keep_results: int = 64
    folder: str | os.PathLike[str] | None = None
    preview_frames: int = 4
    preview_side: int = 512
    preview_seconds: float = 2.0
    preview_share: float = 0.1
    limits: RequestLimits = RequestLimits()

    def __post_init__(self) -> None:
        _all_positive(self)
