"""Preview: a few small frames of latents that are still being worked on.

Given latents and something that decodes; it does not know when a preview is wanted, nor who looks at it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from i2vgen_ms.config.sections import Output
from i2vgen_ms.errors import ArgumentError
from i2vgen_ms.media.frames import to_uint8

Pictures = npt.NDArray[np.uint8]


class Decoder(Protocol):
    """An autoencoder: latents `b f h w c` to chunks of pixels in [-1, 1], `factor` pixels a latent each way."""

    factor: int

    def decode(self, latents: Tensor) -> Iterator[Tensor]: ...


def pictures(latents: Tensor, decoder: Decoder, output: Output, *, frames: int, side: int) -> Pictures:
    """uint8 `f h w 3` of at most `frames` evenly spaced frames of the first of the latents `b c f h w`.

    Args:
        output: the size of the video, which the latents cover, and maybe more.
        side: where the longer side would have more pixels, the latents are averaged down first.
    """
    factor = decoder.factor
    if frames < 1 or side < factor:
        raise ArgumentError(f"a preview has at least 1 frame and {factor} pixels a side, not {frames} and {side}")
    count = latents.shape[2]
    places = sorted({round(place) for place in np.linspace(0, count - 1, min(frames, count))})
    few = rearrange(latents[0][:, places], "c f h w -> f c h w").float()
    rows, columns = few.shape[2:]
    shrink = min(1.0, side / (factor * max(rows, columns)))
    if shrink < 1:
        few = F.interpolate(few, (max(1, int(rows * shrink)), max(1, int(columns * shrink))), mode="area")
    pixels = torch.cat(list(decoder.decode(rearrange(few, "f c h w -> 1 f h w c"))), dim=1)[0]
    high, wide = (
        max(1, size * have // (lattice * factor))
        for size, have, lattice in zip((output.height, output.width), pixels.shape[1:3], (rows, columns), strict=True)
    )
    return to_uint8(pixels[:, :high, :wide])
