"""What a network is told beside the noise, made in one way for training and for use."""

from __future__ import annotations

import torch
from torch import Tensor

from i2vgen_ms.config.sections import FIRST_FRAME_CHANNELS


def first_frame_input(latents: Tensor, frames: int, kind: str) -> Tensor:
    """The extra input `b c f h w` of networks that are shown the first frame: its latents `b c h w` at every frame.

    The latents are the mode of the autoencoder's posterior, scaled as those that the network denoises.
    kind: `latents`, or `latents-and-places`, with three channels more that say where a place is: its frame, row and
    column, each from -1 at the first to 1 at the last (Liu et al. 2018, "CoordConv").
    """
    shown = latents.unsqueeze(2).expand(-1, -1, frames, -1, -1)
    if not FIRST_FRAME_CHANNELS[kind]:
        return shown
    b, _, *sizes = shown.shape
    steps = [torch.linspace(-1, 1, size, device=latents.device, dtype=latents.dtype) for size in sizes]
    places = torch.stack(torch.meshgrid(*steps, indexing="ij"))
    return torch.cat([shown, places.expand(b, -1, -1, -1, -1)], dim=1)
