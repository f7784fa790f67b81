"""What the encoder and the decoder are made of. Activations are `b f h w c`; no block looks beyond its frame."""

from __future__ import annotations

from einops import rearrange
from torch import Tensor, nn

from i2vgen_ms.tensors.layers import GroupNorm, SpatialConvolution
from i2vgen_ms.tensors.ops import Ops

EPSILON = 1e-6


def norm(channels: int, *, groups: int, ops: Ops) -> GroupNorm:
    """The group normalisation of this network: each frame on its own."""
    return GroupNorm(channels, groups=groups, eps=EPSILON, per_frame=True, ops=ops)


class ResidualBlock(nn.Module):
    """Two normalised convolutions beside a shortcut, which is linear where the width changes (He et al. 2016)."""

    def __init__(self, in_channels: int, out_channels: int, *, groups: int, ops: Ops) -> None:
        super().__init__()
        self.ops = ops
        self.peak_channels = max(3 * in_channels, in_channels + 4 * out_channels)
        """The most channels alive at once: the input, and a normalisation that keeps three copies beside its own."""
        self.norm1 = norm(in_channels, groups=groups, ops=ops)
        self.conv1 = SpatialConvolution(in_channels, out_channels, ops=ops)
        self.norm2 = norm(out_channels, groups=groups, ops=ops)
        self.conv2 = SpatialConvolution(out_channels, out_channels, ops=ops)
        self.shortcut = nn.Linear(in_channels, out_channels) if in_channels != out_channels else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm1(x, silu=True)
        h = self.conv1(h, bias=False)
        h = self.norm2(h, silu=True, shift=self.conv1.bias)
        h = self.conv2(h, bias=False)
        return self.ops.add(self.shortcut(x), h, self.conv2.bias)


class SelfAttention(nn.Module):
    """Attention of one head among the places of a frame, added to its input."""

    def __init__(self, channels: int, *, groups: int, ops: Ops) -> None:
        super().__init__()
        self.ops = ops
        self.norm = norm(channels, groups=groups, ops=ops)
        self.to_q = nn.Linear(channels, channels)
        self.to_k = nn.Linear(channels, channels)
        self.to_v = nn.Linear(channels, channels)
        self.to_out = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        b, f, h, w, c = x.shape
        tokens = rearrange(self.norm(x), "b f h w c -> (b f) (h w) 1 c")
        y = self.ops.attention(self.to_q(tokens), self.to_k(tokens), self.to_v(tokens))
        return self.ops.add(x, self.to_out(y).reshape(b, f, h, w, c))


class Middle(nn.Module):
    """The lowest resolution: a residual block, attention, a residual block."""

    def __init__(self, channels: int, *, groups: int, ops: Ops) -> None:
        super().__init__()
        self.block1 = ResidualBlock(channels, channels, groups=groups, ops=ops)
        self.attention = SelfAttention(channels, groups=groups, ops=ops)
        self.block2 = ResidualBlock(channels, channels, groups=groups, ops=ops)

    def forward(self, x: Tensor) -> Tensor:
        return self.block2(self.attention(self.block1(x)))


class Downsample(nn.Module):
    """Half the height and width by a strided convolution that sees one row and one column beyond the end."""

    def __init__(self, channels: int, *, ops: Ops) -> None:
        super().__init__()
        self.ops = ops
        self.conv = SpatialConvolution(channels, channels, ops=ops)

    def forward(self, x: Tensor) -> Tensor:
        # published: zeros at the right and at the bottom only, so the picture is not centred on the grid
        return self.ops.conv_halved(x, self.conv.weight, self.conv.bias)


class Upsample(nn.Module):
    """Twice the height and width: each place repeated, then a convolution."""

    def __init__(self, channels: int, *, ops: Ops) -> None:
        super().__init__()
        self.ops = ops
        self.conv = SpatialConvolution(channels, channels, ops=ops)

    def forward(self, x: Tensor) -> Tensor:
        return self.ops.conv_doubled(x, self.conv.weight, self.conv.bias)
