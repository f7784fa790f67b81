"""The residual block: a convolution pair within frames, told the time, then four convolutions along frames."""

from __future__ import annotations

from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from i2vgen_ms.tensors.layers import GroupNorm, SpatialConvolution, TemporalConvolution
from i2vgen_ms.tensors.ops import Ops

RESIDUAL_NORM_EPS = 1e-5
# published: the temporal convolutions' dropout is fixed, whatever the network's own is.
TEMPORAL_DROPOUT = 0.1


class TemporalConvolutions(nn.Module):
    """Four times norm, SiLU, dropout (not the first), convolution along frames; a residual around all."""

    def __init__(self, channels: int, *, norm_groups: int, ops: Ops) -> None:
        super().__init__()
        self.ops = ops
        self.norms = nn.ModuleList(
            GroupNorm(channels, groups=norm_groups, eps=RESIDUAL_NORM_EPS, per_frame=False, ops=ops) for _ in range(4)
        )
        self.convolutions = nn.ModuleList(TemporalConvolution(channels, channels, ops=ops) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        y, bias = x, None
        for index, (norm, convolution) in enumerate(zip(self.norms, self.convolutions, strict=True)):
            y = norm(y, silu=True, shift=bias)
            if index:
                y = F.dropout(y, TEMPORAL_DROPOUT, self.training)
            y, bias = convolution(y, bias=False), convolution.bias
        return self.ops.add(x, y, bias)


class ResidualBlock(nn.Module):
    """`b f h w in` to `b f h w out`, shifted by the embedding `b e` between its two convolutions."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        embedding_channels: int,
        norm_groups: int,
        dropout: float,
        ops: Ops,
    ) -> None:
        super().__init__()
        self.dropout, self.ops = dropout, ops
        self.norm_in = GroupNorm(in_channels, groups=norm_groups, eps=RESIDUAL_NORM_EPS, per_frame=True, ops=ops)
        self.conv_in = SpatialConvolution(in_channels, out_channels, ops=ops)
        self.embedding = nn.Linear(embedding_channels, out_channels)
        self.norm_out = GroupNorm(out_channels, groups=norm_groups, eps=RESIDUAL_NORM_EPS, per_frame=True, ops=ops)
        self.conv_out = SpatialConvolution(out_channels, out_channels, ops=ops)
        self.skip = nn.Linear(in_channels, out_channels) if in_channels != out_channels else nn.Identity()
        self.temporal = TemporalConvolutions(out_channels, norm_groups=norm_groups, ops=ops)

    def forward(self, given: Tensor | list[Tensor], embedding: Tensor, skip_temporal: bool) -> Tensor:
        """`embedding: b e` after its SiLU; skip_temporal leaves the convolutions along frames out.

        given: `b f h w c`; or a list of this alone, or of two tensors that `ops.join` puts side by side. A list is
        emptied, so that the memory of what was in it is free as soon as it can be.
        """
        parts = given if isinstance(given, list) else [given]
        shape = (*parts[0].shape[:-1], len(self.conv_out.bias))
        shift = self.embedding(embedding) + self.conv_in.bias
        y = self.ops.by_frames(partial(self._within, shift), parts, shape)
        return y if skip_temporal else self.temporal(y)

    def _within(self, shift: Tensor, parts: list[Tensor], out: Tensor | None = None) -> Tensor:
        """What happens within frames."""
        x = self.ops.join(parts.pop(0), parts.pop(0)) if len(parts) > 1 else parts.pop()
        y = self.conv_in(self.norm_in(x, silu=True), bias=False)
        y = self.norm_out(y, silu=True, shift=shift)
        y = F.dropout(y, self.dropout, self.training)
        bias = self.conv_out.bias
        y = self.conv_out(y, bias=False)
        x, lacking = self.ops.linear(x, self.skip)
        return self.ops.add(x, y, bias if lacking is None else bias + lacking, out=out)
