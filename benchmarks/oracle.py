"""The published network at full size with random non-zero weights, for measurements beside ours."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from tests.oracle import published, randomise


def arguments() -> dict[str, Any]:
    """The published constructor arguments of stage 1's network."""
    return dict(published("image_to_video.utils.config").cfg.UNet)


def network() -> nn.Module:
    """The published stage-1 network as its constructor leaves it."""
    unet: nn.Module = published("image_to_video.modules.unet_i2v").Img2VidSDUNet(**arguments())
    return unet


def write_checkpoint(path: str, seed: int = 0) -> int:
    """A synthetic fp32 file in the published format, {'state_dict': ...}; returns the bytes of its weights."""
    with torch.device("meta"):
        made = network()
    state = randomise(made.to_empty(device="cpu"), seed).state_dict()
    torch.save({"state_dict": state}, path)
    return sum(tensor.nbytes for tensor in state.values())
