"""Numbers (a timestep, a frame rate) as vectors: a sinusoid, then a small perceptron."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def sinusoid(values: Tensor, channels: int) -> Tensor:
    """Sinusoidal embedding of `values: b` as `b channels`, cosines first, then sines (Vaswani et al. 2017, 3.5).

    Frequencies are 10000^(-i / half), i = 0 .. half - 1, half = channels // 2; an odd last channel is zero. fp32.
    """
    half = channels // 2
    frequencies = torch.pow(10000, -torch.arange(half, device=values.device, dtype=torch.float32) / half)
    angles = torch.outer(values.float(), frequencies)
    return F.pad(torch.cat([angles.cos(), angles.sin()], dim=-1), (0, channels % 2))


class NumberEmbedding(nn.Module):
    """`b` numbers to `b out_channels`: sinusoid, Linear, SiLU, Linear."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.expand = nn.Linear(channels, out_channels)
        self.project = nn.Linear(out_channels, out_channels)

    def forward(self, values: Tensor) -> Tensor:
        wave = sinusoid(values, self.channels).to(self.expand.weight.dtype)
        return self.project(F.silu(self.expand(wave)))
