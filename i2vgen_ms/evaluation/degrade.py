"""What a clip of the second stage's evaluation has been through: half the size, a little blur and noise, JPEG.

Given true clips; gives back what the model is handed. One fixed damage, so that numbers can be compared; it is none of
those that training draws at random, but no worse than they are.
"""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from i2vgen_ms.media.frames import to_uint8

FACTOR = 2
_BLUR = 0.6  # deviation in pixels of the small frames
_NOISE = 0.02  # deviation, of pixels in [-1, 1]
_QUALITY = 75  # of JPEG

Frames = npt.NDArray[np.uint8]


def degraded(clip: Tensor, *, seed: int) -> Frames:
    """uint8 `f h/2 w/2 3` of a clip `f h w 3` in [-1, 1]; the seed decides the noise."""
    frames = clip.float().cpu().movedim(-1, 1)
    size = (frames.shape[2] // FACTOR, frames.shape[3] // FACTOR)
    small = F.interpolate(frames, size=size, mode="bicubic", antialias=True, align_corners=False)
    places = torch.arange(-2.0, 3.0)
    line = torch.exp(-(places**2) / (2 * _BLUR**2))
    line = (line / line.sum()).expand(3, 1, 1, 5)
    small = F.conv2d(F.pad(small, (2, 2, 2, 2), mode="replicate"), line, groups=3)
    small = F.conv2d(small, line.transpose(2, 3), groups=3)
    noise = torch.randn(small.shape, generator=torch.Generator().manual_seed(seed))
    noisy = to_uint8((small + _NOISE * noise).movedim(1, -1))
    return np.stack([_as_jpeg(frame) for frame in noisy])


def enlarged(frames: Frames, *, width: int, height: int) -> Tensor:
    """`f h w 3` in [-1, 1] by bicubic interpolation, which the second stage is to surpass."""
    pixels = torch.from_numpy(frames).movedim(-1, 1).float() / 127.5 - 1
    return F.interpolate(pixels, size=(height, width), mode="bicubic", align_corners=False).clamp(-1, 1).movedim(1, -1)


def _as_jpeg(frame: Frames) -> Frames:
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "JPEG", quality=_QUALITY)
    return np.asarray(Image.open(file))
