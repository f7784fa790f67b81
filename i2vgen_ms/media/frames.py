"""Frames: float video pixels to uint8, and back.

Given pixels in [-1, 1], gives back what is written to files; given what was read from files, pixels in [-1, 1]. It
knows no file and no network.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from i2vgen_ms.errors import ArgumentError, NonFiniteError

if TYPE_CHECKING:
    from torch import Tensor


def to_uint8(pixels: Any) -> npt.NDArray[np.uint8]:
    """uint8 array of the shape of `pixels`; -1 becomes 0, 1 becomes 255, values outside are clipped.

    `pixels` is a floating-point torch tensor on any device, or numpy array, of any shape. It is left untouched.
    Values are rounded to the nearest level, halves to even: cutting the fraction off would darken a video by half a
    level on average.

    Raises NonFiniteError for NaN or infinity (which a plain cast turns silently into black), ArgumentError for
    whole numbers.
    """
    if isinstance(pixels, np.ndarray):
        if not np.issubdtype(pixels.dtype, np.floating):
            raise ArgumentError(f"expected floating-point pixels in [-1, 1], got {pixels.dtype}")
        if not np.isfinite(pixels).all():
            raise _non_finite()
        levels = pixels.astype(np.float32) * np.float32(127.5) + np.float32(127.5)
        return np.rint(levels.clip(0, 255)).astype(np.uint8)
    if not pixels.is_floating_point():
        raise ArgumentError(f"expected floating-point pixels in [-1, 1], got {pixels.dtype}")
    if not bool(pixels.isfinite().all()):
        raise _non_finite()
    array: npt.NDArray[np.uint8] = to_levels(pixels).cpu().numpy()
    return array


def to_levels(pixels: Tensor) -> Tensor:
    """What `to_uint8` makes of finite floating-point pixels, as a tensor on their device; nothing is waited for."""
    import torch

    with torch.no_grad():
        # mul makes a new tensor (float() alone would hand the input back), so the rest may work in place.
        return pixels.detach().float().mul(127.5).add_(127.5).clamp_(0, 255).round_().to(torch.uint8)


def to_pixels(frames: Any) -> Tensor:
    """fp32 tensor of the shape of `frames`; 0 becomes -1, 255 becomes 1. Floating-point tensors only become fp32.

    `frames` is a uint8 array or tensor, or a floating-point tensor in [-1, 1]. It is left untouched; of an fp32 tensor
    the result is the tensor itself.

    Raises ArgumentError for other types.
    """
    import torch

    value = torch.from_numpy(np.ascontiguousarray(frames)) if isinstance(frames, np.ndarray) else frames
    if value.is_floating_point():
        return value.detach().to(torch.float32)
    if value.dtype != torch.uint8:
        raise ArgumentError(f"frames are uint8, or floating-point in [-1, 1], not {value.dtype}")
    # published: these three steps, whose roundings no shorter formula repeats
    return value.to(torch.float32).div_(255).sub_(0.5).div_(0.5)


def _non_finite() -> NonFiniteError:
    return NonFiniteError("decoded frames: NaN or infinity among the pixels; nothing is written")
