"""Picture: anything that shows one picture, as uint8 `h w 3` RGB.

Given a path, an http(s) address, bytes, a file object, a PIL image, a numpy array or a torch tensor; gives back a new
array. It does not know what the picture is for. Colour profiles are not applied.
"""

from __future__ import annotations

import io
import sys
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from i2vgen_ms.errors import ArgumentError, MediaLimitError, NonFiniteError, OutOfMemoryError, UnreadableMediaError
from i2vgen_ms.media.limits import Limits
from i2vgen_ms.media.source import describe, read_source

Picture = npt.NDArray[np.uint8]

# Everything else that Pillow can open (PDF, EPS, FITS, ...) is refused before its decoder sees a byte.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "AVIF")

_ORIENTATION_TAG = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_WHITE = (255, 255, 255, 255)


def read_picture(source: Any, *, limits: Limits | None = None) -> Picture:
    """The picture as a new uint8 array `h w 3`, RGB; `source` is left as it was.

    - path, address, bytes, file object: PNG, JPEG, WebP, BMP, GIF, TIFF or AVIF; of several frames the first.
    - PIL image: its current frame.
    - numpy array: `h w`, or `h w c` with c 1, 3 (BGR) or 4 (BGRA), as cv2 gives it; uint8, uint16, bool, other whole
      numbers within 0..255, or floats (0..1 when nothing is above 1, else 0..255).
    - torch tensor: `h w`, `c h w` or `h w c`, c 1, 3 (RGB) or 4 (RGBA), also with a leading batch of 1; uint8, or
      floats in [0, 1]. When both ends could be c, the first is.

    The EXIF orientation is applied, transparency is composited on white, 16 bits are scaled by 257. 32-bit pictures
    (PIL modes I and F) carry no scale: what stays within 0..1 (F only), 0..255 or 0..65535 is taken to use that
    range, anything else is stretched between its own ends.

    Raises UnreadableMediaError (damaged, empty, another format), MediaLimitError (bytes, pixels, before decoding),
    ArgumentError (an array or tensor of another shape, type or range), NonFiniteError (NaN or infinity).
    """
    limits = limits or Limits()
    torch = sys.modules.get("torch")
    if isinstance(source, Image.Image):
        _check_pixels(source.width, source.height, limits, source)
        return _decoded(source, source)
    if isinstance(source, np.ndarray):
        return _from_array(source, limits)
    if torch is not None and isinstance(source, torch.Tensor):
        return _from_tensor(source, limits)
    with _opened(read_source(source, limits=limits), source) as image:
        _check_pixels(image.width, image.height, limits, source)
        return _decoded(image, source)


def _opened(data: bytes, source: Any) -> Image.Image:
    """Reads the header; pixels are not decoded yet."""
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise MediaLimitError(f"{describe(source)} has too many pixels: {error}") from error
    except MemoryError as error:
        raise _too_little_memory(source) from error
    except Image.UnidentifiedImageError as error:
        raise UnreadableMediaError(
            f"{describe(source)} is not a picture, or of a format that is not accepted ({', '.join(FORMATS)}); "
            f"it begins with {data[:16]!r}"
        ) from error
    except Exception as error:  # a damaged file makes Pillow's readers raise nearly anything
        raise UnreadableMediaError(f"{describe(source)} is damaged: {error}") from error


def _check_pixels(width: int, height: int, limits: Limits, source: Any) -> None:
    if width < 1 or height < 1:
        raise UnreadableMediaError(f"{describe(source)} has no pixels ({width}x{height})")
    if width * height > limits.max_pixels:
        raise MediaLimitError(
            f"{describe(source)} has {width}x{height} = {width * height} pixels; at most {limits.max_pixels} are read"
        )


def _decoded(image: Image.Image, source: Any) -> Picture:
    try:
        image.load()
        picture = _rgb(image)
        turn = _TURNS.get(_orientation(image))
        return np.array(picture if turn is None else picture.transpose(turn))
    except (NonFiniteError, MediaLimitError, Image.DecompressionBombError):
        raise
    except MemoryError as error:
        raise _too_little_memory(source) from error
    except Exception as error:  # a damaged file makes Pillow's decoders raise nearly anything
        raise UnreadableMediaError(
            f"{describe(source)} is damaged or cannot be converted "
            f"({image.format or 'picture'}, mode {image.mode}): {error}"
        ) from error


def _too_little_memory(source: Any) -> OutOfMemoryError:
    return OutOfMemoryError(f"out of memory while reading {describe(source)}; give a smaller picture")


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # damaged EXIF beside sound pixels: the picture is shown as stored
        return 1


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _deep_grey(image)
    if image.mode in ("RGBa", "La"):
        image = image.convert(image.mode[:-1] + "A")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, _WHITE), layer).convert("RGB")
    return image.convert("RGB")


def _deep_grey(image: Image.Image) -> Image.Image:
    """16 or 32 bits a pixel, one channel. Pillow's own conversion clips them at 255: white for nearly every 16 bit."""
    values = np.asarray(image)
    if image.mode.startswith("I;16"):
        levels = _scaled(values, 0, 65535)
        key = image.info.get("transparency")
        if isinstance(key, int):
            levels[values == key] = 255
    else:
        if not np.isfinite(values).all():
            raise NonFiniteError("the picture holds NaN or infinity")
        low, high = float(values.min()), float(values.max())
        tops = (1.0, 255.0, 65535.0) if image.mode == "F" else (255.0, 65535.0)
        top = next((top for top in tops if low >= 0 and high <= top), None)
        levels = _scaled(values, low, high) if top is None else _scaled(values, 0, top)
    return Image.fromarray(levels).convert("RGB")


def _scaled(values: npt.NDArray[Any], low: float, high: float) -> Picture:
    """uint8 with `low` at 0 and `high` at 255, rounded."""
    if high <= low:
        return np.zeros(values.shape, np.uint8)
    wide: npt.NDArray[Any] = values.astype(np.float64 if values.dtype.itemsize > 2 else np.float32)
    return np.rint((wide - low) * (255.0 / (high - low))).astype(np.uint8)


def _from_array(array: npt.NDArray[Any], limits: Limits) -> Picture:
    shape = array.shape
    if array.ndim not in (2, 3) or (array.ndim == 3 and shape[2] not in (1, 3, 4)):
        raise ArgumentError(f"a picture as array has the shape (h, w), (h, w, 1), (h, w, 3) or (h, w, 4), not {shape}")
    _check_pixels(shape[1], shape[0], limits, array)
    levels = _levels(array)
    if array.ndim == 3 and shape[2] >= 3:
        # published: arrays are BGR, as cv2.imread gives them
        levels = np.concatenate([levels[:, :, 2::-1], levels[:, :, 3:]], axis=2)
    return _three_channels(levels)


def _levels(array: npt.NDArray[Any]) -> Picture:
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype == np.uint16:
        return _scaled(array, 0, 65535)
    if not (np.issubdtype(array.dtype, np.integer) or np.issubdtype(array.dtype, np.floating)):
        raise ArgumentError(f"a picture as array holds numbers, not {array.dtype}")
    if not np.isfinite(array).all():
        raise NonFiniteError("the picture's array holds NaN or infinity")
    low, high = array.min(), array.max()
    if low < 0 or high > 255:
        raise ArgumentError(f"a picture as {array.dtype} array holds values in 0..255 (or 0..1), not {low}..{high}")
    return _scaled(array, 0, 1 if np.issubdtype(array.dtype, np.floating) and high <= 1 else 255)


def _from_tensor(tensor: Any, limits: Limits) -> Picture:
    shape = tuple(tensor.shape)
    value = tensor.detach()
    if value.ndim == 4 and shape[0] == 1:
        value = value[0]
    if value.ndim == 3:
        if value.shape[0] in (1, 3, 4):
            value = value.permute(1, 2, 0)
        elif value.shape[2] not in (1, 3, 4):
            value = None
    elif value.ndim != 2:
        value = None
    if value is None:
        raise ArgumentError(
            f"a picture as tensor has the shape (c, h, w), (h, w, c) or (h, w), c 1, 3 or 4, not {shape}"
        )
    _check_pixels(value.shape[1], value.shape[0], limits, tensor)
    if value.is_floating_point():
        array = value.float().cpu().numpy()
        if not np.isfinite(array).all():
            raise NonFiniteError("the picture's tensor holds NaN or infinity")
        low, high = float(array.min()), float(array.max())
        if low < -0.002 or high > 1.002:  # half a level: rounding of whoever made it, not another convention
            raise ArgumentError(
                f"a picture as floating-point tensor holds values in [0, 1], not {low:g}..{high:g}; "
                "for [-1, 1] give (x + 1) / 2, for 0..255 give x.byte()"
            )
        return _three_channels(_scaled(array.clip(0, 1), 0, 1))
    if str(value.dtype) != "torch.uint8":
        raise ArgumentError(f"a picture as tensor is floating-point in [0, 1] or uint8, not {value.dtype}")
    return _three_channels(value.cpu().numpy())


def _three_channels(levels: Picture) -> Picture:
    """A new `h w 3` array from `h w`, `h w 1`, RGB or RGBA."""
    if levels.ndim == 3 and levels.shape[2] == 1:
        levels = levels[:, :, 0]
    return np.array(_rgb(Image.fromarray(np.ascontiguousarray(levels))))
