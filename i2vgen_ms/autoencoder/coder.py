"""The two halves of the autoencoder. `levels[i]` works at 1/2^i of the picture's height and width in both of them.

They are given pixels or unscaled latents, `b f h w c`, and know neither the posterior nor the scale of the latents.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from i2vgen_ms.autoencoder.blocks import Downsample, Middle, ResidualBlock, Upsample, norm
from i2vgen_ms.tensors.layers import SpatialConvolution
from i2vgen_ms.tensors.ops import Ops


class Level(nn.Module):
    """Residual blocks of one resolution, then a step to the next one (none at the last)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        blocks: int,
        groups: int,
        step: type[Downsample] | type[Upsample] | None,
        ops: Ops,
    ) -> None:
        super().__init__()
        widths = [in_channels, *[out_channels] * blocks]
        members = [ResidualBlock(i, o, groups=groups, ops=ops) for i, o in pairwise(widths)]
        # Who calls keeps this level's input until the last block is done.
        peaks = [block.peak_channels + (in_channels if i else 0) for i, block in enumerate(members)]
        self.peak_channels = max(peaks)
        """The most channels alive at once in the blocks of this level."""
        self.blocks = nn.ModuleList(members)
        self.step = step(out_channels, ops=ops) if step is not None else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.step(x)


class Encoder(nn.Module):
    """Pixels `b f h w c` to the moments of the posterior, `b f h/k w/k 2z` with k = 2^(levels - 1)."""

    def __init__(
        self,
        *,
        channels: int,
        multipliers: Sequence[int],
        residual_blocks: int,
        in_channels: int,
        latent_channels: int,
        norm_groups: int,
        ops: Ops,
    ) -> None:
        super().__init__()
        widths = [channels, *[channels * m for m in multipliers]]
        last = len(multipliers) - 1
        self.stem = SpatialConvolution(in_channels, channels, ops=ops)
        levels = [
            Level(
                widths[i],
                widths[i + 1],
                blocks=residual_blocks,
                groups=norm_groups,
                step=Downsample if i < last else None,
                ops=ops,
            )
            for i in range(len(multipliers))
        ]
        self.peak_values = _peak_values(levels)
        """The most numbers alive at once for each pixel of full resolution, estimated from the widths."""
        self.levels = nn.ModuleList(levels)
        self.middle = Middle(widths[-1], groups=norm_groups, ops=ops)
        self.norm = norm(widths[-1], groups=norm_groups, ops=ops)
        self.head = SpatialConvolution(widths[-1], 2 * latent_channels, ops=ops)

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.stem(pixels)
        for level in self.levels:
            x = level(x)
        x = self.middle(x)
        return self.head(self.norm(x, silu=True))


class Decoder(nn.Module):
    """Unscaled latents `b f h w z` to pixels `b f kh kw c` with k = 2^(levels - 1); one block a level more."""

    def __init__(
        self,
        *,
        channels: int,
        multipliers: Sequence[int],
        residual_blocks: int,
        out_channels: int,
        latent_channels: int,
        norm_groups: int,
        ops: Ops,
    ) -> None:
        super().__init__()
        widths = [*[channels * m for m in multipliers], channels * multipliers[-1]]
        self.stem = SpatialConvolution(latent_channels, widths[-1], ops=ops)
        self.middle = Middle(widths[-1], groups=norm_groups, ops=ops)
        levels = [
            Level(
                widths[i + 1],
                widths[i],
                blocks=residual_blocks + 1,
                groups=norm_groups,
                step=Upsample if i > 0 else None,
                ops=ops,
            )
            for i in range(len(multipliers))
        ]
        self.peak_values = _peak_values(levels)
        """The most numbers alive at once for each pixel of full resolution, estimated from the widths."""
        self.levels = nn.ModuleList(levels)
        self.norm = norm(widths[0], groups=norm_groups, ops=ops)
        self.head = SpatialConvolution(widths[0], out_channels, ops=ops)

    def forward(self, latents: Tensor) -> Tensor:
        x = self.middle(self.stem(latents))
        for level in reversed(self.levels):
            x = level(x)
        return self.head(self.norm(x, silu=True))


def _peak_values(levels: Sequence[Level]) -> int:
    return max(level.peak_channels // 4**i for i, level in enumerate(levels))
