"""Padding: frames to whole latents, latents to the size that a network takes, by repeating what is at the edge.

What is added is cut off again after decoding.
"""

from __future__ import annotations

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor


def pad_pixels(pixels: Tensor, factor: int) -> Tensor:
    """Frames `f h w c` with their last rows and columns repeated until the sides are multiples of `factor`."""
    _, high, wide, _ = pixels.shape
    rows, columns = -high % factor, -wide % factor
    if not rows and not columns:
        return pixels
    padded = F.pad(rearrange(pixels, "f h w c -> f c h w"), (0, columns, 0, rows), mode="replicate")
    return rearrange(padded, "f c h w -> f h w c")


def pad_latents(latents: Tensor, rows: int, columns: int) -> Tensor:
    """Latents `b c f h w` with their last rows and columns repeated up to that size."""
    return F.pad(latents, (0, columns - latents.shape[-1], 0, rows - latents.shape[-2], 0, 0), mode="replicate")
