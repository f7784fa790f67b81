"""Crop: the part of a picture that the image encoder sees.

Given a uint8 `h w 3` picture and sizes; gives back another. It knows neither files nor the encoder's normalisation.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image

from i2vgen_ms.errors import ArgumentError, nearest

Picture = npt.NDArray[np.uint8]

# Above this many pixels the published way (resize everything, then cut) is not taken: a picture of 1x5000 would become
# one of 448x2240000 first.
_WHOLE_RESIZE_PIXELS = 32_000_000


def crop_picture(image: Picture, mode: str, *, size: int, width: int, height: int) -> Picture:
    """The part of `image` (uint8 `h w 3`) that is shown to the image encoder, uint8 `h w 3`.

    `mode`:
    - 'centre-square': the largest centred square, resampled to `size` x `size`. # published: the default
    - 'fill': the largest centred part with the aspect `width`:`height` of the video, in the picture's own resolution.
    - 'pad': the whole picture, centred on a black square of `size` x `size`.

    Raises ArgumentError for another mode, or sizes that are not positive.
    """
    for name, value in (("size", size), ("width", width), ("height", height)):
        if value < 1:
            raise ArgumentError(f"crop: {name} must be at least 1, not {value}")
    try:
        cut = _MODES[mode]
    except KeyError:
        raise ArgumentError(f"crop={mode!r} is unknown; {nearest(mode, _MODES)}") from None
    return np.array(cut(Image.fromarray(np.ascontiguousarray(image)), size, width, height))


def resize_for_encoder(image: Picture, image_size: int) -> Picture:
    """`image` (uint8 `h w 3`) at `image_size` x `image_size`, bilinear with antialiasing, as published."""
    # published: Resize(vit_resolution) squashes whatever it is given
    picture = Image.fromarray(np.ascontiguousarray(image))
    return np.array(picture.resize((image_size, image_size), Image.Resampling.BILINEAR))


def _centre_square(image: Image.Image, size: int, width: int, height: int) -> Image.Image:
    # published: CenterCropWide. The divisions are its own, floor included, because they choose the scale. The floor
    # often makes a side one pixel too short, and the cut then showed a black line: a side is never made too short here.
    scale = min(image.width / size, image.height / size)
    wide = max(size, round(image.width // scale))
    high = max(size, round(image.height // scale))
    left, top = (wide - size) // 2, (high - size) // 2
    if wide * high <= max(_WHOLE_RESIZE_PIXELS, image.width * image.height):
        whole = image.resize((wide, high), Image.Resampling.BOX)
        return whole.crop((left, top, left + size, top + size))
    across, down = image.width / wide, image.height / high
    box = (left * across, top * down, min(image.width, (left + size) * across), min(image.height, (top + size) * down))
    return image.resize((size, size), Image.Resampling.BOX, box=box)


def _fill(image: Image.Image, size: int, width: int, height: int) -> Image.Image:
    wide = min(image.width, max(1, round(image.height * width / height)))
    high = min(image.height, max(1, round(image.width * height / width)))
    left, top = (image.width - wide) // 2, (image.height - high) // 2
    return image.crop((left, top, left + wide, top + high))


def _pad(image: Image.Image, size: int, width: int, height: int) -> Image.Image:
    scale = size / max(image.width, image.height)
    wide, high = (min(size, max(1, round(side * scale))) for side in image.size)
    canvas = Image.new("RGB", (size, size))
    whole = image.resize((wide, high), Image.Resampling.BILINEAR)
    canvas.paste(whole, ((size - wide) // 2, (size - high) // 2))
    return canvas


_MODES: dict[str, Callable[[Image.Image, int, int, int], Image.Image]] = {
    "centre-square": _centre_square,
    "fill": _fill,
    "pad": _pad,
}
MODES = tuple(_MODES)
