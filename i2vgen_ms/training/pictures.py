"""First frames as the image encoder takes them, made on the device from a batch's pixels."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor


def encoder_pictures(first: Tensor, encoder: Any, configuration: Any) -> Tensor:
    """First frames `b h w c` in [-1, 1] as the image encoder takes them, cut as the configuration cuts pictures.

    The pipeline resamples with Pillow, which antialiases as this does.
    """
    pictures = rearrange(first, "b h w c -> b c h w").float()
    height, width = pictures.shape[2:]
    crop = configuration.input.crop
    if crop == "centre-square":
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        pictures = pictures[:, :, top : top + side, left : left + side]
    elif crop == "pad":
        rows, columns = max(0, width - height), max(0, height - width)
        pictures = F.pad(pictures, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2), value=-1.0)
    side = encoder.image_size
    pictures = F.interpolate(pictures, size=(side, side), mode="bilinear", align_corners=False, antialias=True)
    mean, std = (
        torch.tensor(values).to(pictures.device, non_blocking=True).reshape(3, 1, 1)
        for values in (encoder.mean, encoder.std)
    )
    return ((pictures.clamp(-1, 1) + 1) / 2 - mean) / std
