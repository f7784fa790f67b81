"""What a network is told beside the noise, made in one way for training and for use."""

from __future__ import annotations

from torch import Tensor


def first_frame_input(latents: Tensor, frames: int) -> Tensor:
    """The extra input `b c f h w` of networks that are shown the first frame: its latents `b c h w` at every frame.

    The latents are the mode of the autoencoder's posterior, scaled as those that the network denoises. The result is
    a view.
    """
    return latents.unsqueeze(2).expand(-1, -1, frames, -1, -1)
