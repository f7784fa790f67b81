"""Fit: a clip's frames at the size that is asked for.

Given uint8 or float frames and a mode; gives back float pixels in [-1, 1]. It knows no file and no network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from i2vgen_ms.errors import ArgumentError, nearest
from i2vgen_ms.media.frames import to_pixels

MODES = ("squash", "crop", "pad", "keep")
_BLACK = -1.0


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the source's picture lies in a fitted frame, in pixels; with `pad`, everything around it is black."""

    left: int
    top: int
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class _Plan:
    """Cut the source, resize it to the placement's size, put it onto a frame of width x height."""

    width: int
    height: int
    cut: tuple[slice, slice]
    placement: Placement
    antialias: bool


def fitted_size(mode: str, source_width: int, source_height: int, width: int, height: int) -> tuple[int, int]:
    """(width, height) of what `fit_clip` gives; `width` x `height`, except for 'keep'.

    'keep': the largest size inside `width` x `height` with the source's aspect, both sides even, as video formats need
    them; the aspect is off by less than two pixels. Asked again with its own answer, it gives the same answer.

    Raises ArgumentError for another mode, or sizes that are not positive.

    >>> fitted_size('keep', 720, 1280, 1280, 720), fitted_size('pad', 720, 1280, 1280, 720)
    ((406, 720), (1280, 720))
    """
    if mode not in MODES:
        raise ArgumentError(f"fit={mode!r} is unknown; {nearest(str(mode), MODES)}")
    sizes = {"source width": source_width, "source height": source_height, "width": width, "height": height}
    for name, value in sizes.items():
        if value < 1:
            raise ArgumentError(f"fit: {name} must be at least 1, not {value}")
    if mode != "keep":
        return width, height
    wide, high = max(2, width // 2 * 2), max(2, height // 2 * 2)
    if wide * source_height <= high * source_width:
        return wide, _even(wide * source_height, source_width)
    return _even(high * source_width, source_height), high


def fit_chunks(frames: Any, mode: str, *, width: int, height: int, chunk: int = 1) -> Iterator[Tensor]:
    """`chunk` frames at a time of what `fit_clip` gives, as they are asked for; so only these are held as floats."""
    if chunk < 1:
        raise ArgumentError(f"fit: chunk must be at least 1, not {chunk}")
    plan = _plan(mode, frames.shape, width, height)
    return (_fitted(frames[start : start + chunk], plan) for start in range(0, frames.shape[0], chunk))


def fit_clip(frames: Any, mode: str, *, width: int, height: int, chunk: int = 1) -> tuple[Tensor, Placement]:
    """All frames as fp32 pixels `f h w c` in [-1, 1] of `fitted_size`, and where the picture lies in them.

    `frames`: `f h w c`, a uint8 array or tensor, or a floating-point tensor in [-1, 1]; it is left as it was, and the
    result is on its device. Beside the result, only `chunk` frames are held at a time; the result does not depend on
    it.

    - 'squash': the whole picture, stretched to the size, bilinear without antialiasing. # published: the default
    - 'crop': the largest centred part with the aspect asked for.
    - 'pad': the whole picture in its own aspect, centred, with black bars.
    - 'keep': the whole picture in its own aspect, and `width`, `height` are bounds (see `fitted_size`).

    All but the published one are antialiased where they make smaller.

    Raises ArgumentError for another mode, shape or type, or sizes that are not positive.
    """
    plan = _plan(mode, frames.shape, width, height)
    result: Tensor | None = None
    start = 0
    for pixels in fit_chunks(frames, mode, width=width, height=height, chunk=chunk):
        if result is None:
            result = pixels.new_empty((frames.shape[0], *pixels.shape[1:]))
        result[start : start + pixels.shape[0]] = pixels
        start += pixels.shape[0]
    if result is None:
        raise ArgumentError("fit: there are no frames")
    return result, plan.placement


def _even(numerator: int, denominator: int) -> int:
    """The quotient, rounded up to an even number; so the longer side stays the one that fills its bound."""
    return -(-numerator // (2 * denominator)) * 2


def _whole(width: int, height: int, antialias: bool) -> _Plan:
    return _Plan(width, height, (slice(None), slice(None)), Placement(0, 0, width, height), antialias)


def _crop(wide: int, high: int, width: int, height: int) -> _Plan:
    # Cut first: enlarging first and cutting then would take memory for what nobody sees.
    cut_wide = min(wide, max(1, round(high * width / height)))
    cut_high = min(high, max(1, round(wide * height / width)))
    left, top = (wide - cut_wide) // 2, (high - cut_high) // 2
    cut = slice(top, top + cut_high), slice(left, left + cut_wide)
    return _Plan(width, height, cut, Placement(0, 0, width, height), antialias=True)


def _pad(wide: int, high: int, width: int, height: int) -> _Plan:
    scale = min(width / wide, height / high)
    inner_wide = min(width, max(1, round(wide * scale)))
    inner_high = min(height, max(1, round(high * scale)))
    placement = Placement((width - inner_wide) // 2, (height - inner_high) // 2, inner_wide, inner_high)
    return _Plan(width, height, (slice(None), slice(None)), placement, antialias=True)


_PLANS: dict[str, Callable[[int, int, int, int], _Plan]] = {
    # published: no antialiasing, and any aspect becomes that of the output
    "squash": lambda wide, high, width, height: _whole(width, height, antialias=False),
    "crop": _crop,
    "pad": _pad,
    "keep": lambda wide, high, width, height: _whole(width, height, antialias=True),
}


def _plan(mode: str, shape: tuple[int, ...], width: int, height: int) -> _Plan:
    if len(shape) != 4 or shape[3] != 3:
        raise ArgumentError(f"fit: frames have the shape (f, h, w, 3), not {tuple(shape)}")
    high, wide = int(shape[1]), int(shape[2])
    size = fitted_size(mode, wide, high, width, height)
    return _PLANS[mode](wide, high, *size)


def _fitted(frames: Any, plan: _Plan) -> Tensor:
    """`f h w c` fp32 of the plan's size."""
    cut = frames[:, plan.cut[0], plan.cut[1]]
    place = plan.placement
    # published: contiguous `f c h w`; another memory layout is another kernel, which need not round alike.
    pixels = to_pixels(cut).permute(0, 3, 1, 2).contiguous()
    size = (place.height, place.width)
    pixels = F.interpolate(pixels, size=size, mode="bilinear", align_corners=False, antialias=plan.antialias)
    if size != (plan.height, plan.width):
        right, below = plan.width - place.left - place.width, plan.height - place.top - place.height
        pixels = F.pad(pixels, (place.left, right, place.top, below), value=_BLACK)
    return pixels.permute(0, 2, 3, 1)
