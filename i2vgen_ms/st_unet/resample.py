"""Halving and doubling of each frame's size, between the levels of the network."""

from __future__ import annotations

from torch import Tensor, nn

from i2vgen_ms.tensors.layers import SpatialConvolution
from i2vgen_ms.tensors.ops import Ops


class Downsample(nn.Module):
    """A convolution of stride 2 on `b f h w c`; padding is (rows, columns)."""

    def __init__(self, channels: int, *, padding: tuple[int, int], ops: Ops) -> None:
        super().__init__()
        self.convolution = SpatialConvolution(channels, channels, stride=2, padding=padding, ops=ops)

    def forward(self, x: Tensor) -> Tensor:
        return self.convolution(x)


class Upsample(nn.Module):
    """Nearest-neighbour doubling of `b f h w c`, `crop` rows off at the top and the bottom, then a convolution."""

    def __init__(self, channels: int, *, crop: int, ops: Ops) -> None:
        super().__init__()
        self.crop, self.ops = crop, ops
        self.convolution = SpatialConvolution(channels, channels, ops=ops)

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = 2 * (x.shape[2] - self.crop), 2 * x.shape[3]
        return self.ops.by_frames(self._enlarged, [x], (*x.shape[:2], rows, columns, x.shape[4]))

    def _enlarged(self, parts: list[Tensor], out: Tensor | None = None) -> Tensor:
        y: Tensor = self.convolution(self.ops.double(parts.pop(), crop=self.crop))
        return y if out is None else out.copy_(y)
