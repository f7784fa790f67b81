"""A temporal block without weights for i2vgen_ms."""

import torch
from torch import nn


class MovingAverage(nn.Module):
    """Mixes every frame with the mean of its neighbours."""

    def __init__(self, *, channels, heads, head_channels, norm_groups, ops, strength: float) -> None:
        super().__init__()
        self.strength = strength

    @classmethod
    def shared_part(cls, *, heads, head_channels, strength: float) -> None:
        return None

    def forward(self, x, shared=None):
        padded = torch.cat([x[:, :1], x, x[:, -1:]], dim=1)
        return torch.lerp(x, (padded[:, :-2] + padded[:, 2:]) / 2, self.strength)
