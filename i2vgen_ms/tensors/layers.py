"""The parameter holders every network here is made of; the arithmetic is the ops table's.

Convolutions keep their weights in channels_last memory, the order that `b f h w c` activations meet.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from i2vgen_ms.tensors.ops import Ops


class GroupNorm(nn.Module):
    """Group normalisation of `b f h w c`; per frame, or over all frames of a video.

    forward(x, silu, shift): SiLU after it if asked; shift `c` or `b c` is added to x first.
    """

    def __init__(self, channels: int, *, groups: int, eps: float, per_frame: bool, ops: Ops) -> None:
        super().__init__()
        self.groups, self.eps, self.per_frame, self.ops = groups, eps, per_frame, ops
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, *, silu: bool = False, shift: Tensor | None = None) -> Tensor:
        return self.ops.group_norm(
            x,
            self.weight,
            self.bias,
            groups=self.groups,
            eps=self.eps,
            per_frame=self.per_frame,
            silu=silu,
            shift=shift,
        )


class LayerNorm(nn.Module):
    """Layer normalisation over the last axis."""

    def __init__(self, channels: int, *, ops: Ops) -> None:
        super().__init__()
        self.ops = ops
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return self.ops.layer_norm(x, self.weight, self.bias)

    def of_sum(self, x: Tensor, y: Tensor, shift: Tensor | None) -> tuple[Tensor, Tensor]:
        """`x + y + shift`, and its normalisation; shift, `c`, is what y lacks, if anything."""
        return self.ops.add_layer_norm(x, y, self.weight, self.bias, shift=shift)

    def of_shifted(self, x: Tensor, shift: Tensor | None) -> tuple[Tensor, Tensor]:
        """`x + shift`, maybe in the place of x, and its normalisation; shift, `c`, is what x lacks, if anything."""
        if shift is None:
            return x, self(x)
        return self.ops.shift_layer_norm(x, shift, self.weight, self.bias)


class _Convolution(nn.Module):
    """Weight `o i kh kw` and bias `o`, initialised as torch's convolutions are.

    forward(x, bias): without its bias where the caller adds it to what comes next, which reads every value anyway.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: tuple[int, int], ops: Ops) -> None:
        super().__init__()
        self.ops = ops
        template = nn.Conv2d(in_channels, out_channels, kernel)
        self.weight = nn.Parameter(template.weight.detach().to(memory_format=torch.channels_last))
        self.bias = nn.Parameter(template.bias.detach())  # type: ignore[union-attr]


class SpatialConvolution(_Convolution):
    """A convolution of each frame of `b f h w c`; padding is (rows, columns)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        ops: Ops,
        kernel: int = 3,
        stride: int = 1,
        padding: tuple[int, int] = (1, 1),
    ) -> None:
        super().__init__(in_channels, out_channels, (kernel, kernel), ops)
        self.stride, self.padding = stride, padding

    def forward(self, x: Tensor, *, bias: bool = True) -> Tensor:
        return self.ops.conv_spatial(
            x, self.weight, self.bias if bias else None, stride=self.stride, padding=self.padding
        )


class TemporalConvolution(_Convolution):
    """A convolution along the frames of `b f h w c`, kernel 3, same number of frames."""

    def __init__(self, in_channels: int, out_channels: int, *, ops: Ops) -> None:
        super().__init__(in_channels, out_channels, (3, 1), ops)

    def forward(self, x: Tensor, *, bias: bool = True) -> Tensor:
        return self.ops.conv_temporal(x, self.weight, self.bias if bias else None)
