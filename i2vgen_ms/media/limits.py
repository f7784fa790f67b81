"""Limits: how large a picture, a video or a download may be, and how long reading it may take.

Given to everything that reads media, and checked before the work that they bound (before fetching, before decoding).
It does not know what is read, nor who calls.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

MEBIBYTE = 1 << 20
_URLS = ("any", "public", "none")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds on what is read; every one can be changed, none can be switched off.

    `max_bytes`, `max_pixels`: an encoded picture's bytes, and its width times height.
    `max_video_bytes`, `max_video_pixels`: an encoded video's bytes, and one frame's width times height.
    `max_frames`, `max_clip_bytes`: frames of a decoded clip, and the bytes of all of them together.
    `max_audio_bytes`: the encoded sound of a clip's frames.
    `decode_seconds`: time for decoding a whole clip, and for going through the rest of its file.
    `connect_seconds`, `total_seconds`, `redirects`: of one download, all redirects included in the total.
    `urls`: which http and https addresses are fetched: `any`; `public`, those of the public internet alone, whatever a
    name resolves to and however often it redirects, without the proxies and passwords of the environment; `none`.
    `paths`: whether names of files are opened.

    What strangers send is read with `Limits(urls='public', paths=False)`, or `urls='none'`: nothing of the machine or
    of the network that it stands in can be read through it.

    Raises ValueError for a bound that is not positive (`redirects` may be 0), or another word for `urls`.
    """

    max_bytes: int = 64 * MEBIBYTE
    max_pixels: int = 64_000_000
    max_video_bytes: int = 1024 * MEBIBYTE
    max_video_pixels: int = 4096 * 2304
    max_frames: int = 4096
    max_clip_bytes: int = 1536 * MEBIBYTE
    max_audio_bytes: int = 64 * MEBIBYTE
    decode_seconds: float = 60.0
    connect_seconds: float = 10.0
    total_seconds: float = 30.0
    redirects: int = 3
    urls: Literal["any", "public", "none"] = "any"
    paths: bool = True

    def __post_init__(self) -> None:
        if self.urls not in _URLS:
            raise ValueError(f"Limits.urls is {', '.join(map(repr, _URLS))}, not {self.urls!r}")
        if not isinstance(self.paths, bool):
            raise ValueError(f"Limits.paths is True or False, not {self.paths!r}")
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name not in ("urls", "paths") and not (value > 0 or (value == 0 and field.name == "redirects")):
                raise ValueError(f"Limits.{field.name} must be positive, not {value!r}")


def words(count: int) -> str:
    """A number of bytes for a message.

    >>> words(67108864)
    '64.0 MiB'
    """
    return f"{count / MEBIBYTE:.1f} MiB" if count >= MEBIBYTE else f"{count} bytes"
