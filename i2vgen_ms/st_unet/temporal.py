"""Temporal blocks: attention over the frames at every place. One signature for all, so that they are swappable.

A temporal block is a class with the constructor `(channels, heads, head_channels, norm_groups, ops, **options)` and
`forward(x: b f h w c, shared) -> b f h w c`. `shared` is what the class's `shared_part(heads, head_channels,
**options)` module returns for a number of frames, computed once per forward of the network; classes that share nothing
return None.
"""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple, Protocol, cast

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from i2vgen_ms.st_unet.transformer import TRANSFORMER_NORM_EPS, TransformerBlock
from i2vgen_ms.tensors.layers import GroupNorm
from i2vgen_ms.tensors.ops import Ops


class TemporalChoice(Protocol):
    """How a network makes its temporal blocks: those of one class, with its options."""

    fixed_heads: bool

    def block(self, *, channels: int, heads: int, head_channels: int, norm_groups: int, ops: Ops) -> nn.Module: ...

    def shared_part(self, *, heads: int, head_channels: int) -> nn.Module | None: ...


class TemporalTransformer(nn.Module):
    """Two self-attentions over frames and a feed-forward, no positions: order comes from the temporal convolutions."""

    def __init__(self, *, channels: int, heads: int, head_channels: int, norm_groups: int, ops: Ops) -> None:
        super().__init__()
        inner = heads * head_channels
        self.ops = ops
        self.norm = GroupNorm(channels, groups=norm_groups, eps=TRANSFORMER_NORM_EPS, per_frame=False, ops=ops)
        self.project_in = nn.Linear(channels, inner)
        self.block = TransformerBlock(inner, context_channels=inner, heads=heads, head_channels=head_channels, ops=ops)
        self.project_out = nn.Linear(inner, channels)

    @classmethod
    def shared_part(cls, *, heads: int, head_channels: int) -> None:
        return None

    def forward(self, x: Tensor, shared: None = None) -> Tensor:
        tokens, shift = self.ops.linear(self.norm(x), self.project_in)
        tokens = rearrange(tokens, "b f h w c -> b f (h w) c")
        tokens = self.ops.in_parts(partial(self._attend, shift=shift), tokens, axis=2)
        tokens = rearrange(tokens, "b f (h w) c -> b f h w c", h=x.shape[2])
        return self.ops.add(x, *self.ops.linear(tokens, self.project_out))

    def _attend(self, tokens: Tensor, *, shift: Tensor | None, out: Tensor | None = None) -> Tensor:
        return cast(Tensor, self.block(tokens, self.ops.attend_over_frames, shift=shift, out=out))


class FramePositions(NamedTuple):
    """What rotary blocks share: rotation angles `f r` of the first r channels of a head, and a bias `heads f f`."""

    angles: Tensor
    bias: Tensor


class RotaryPositions(nn.Module):
    """Rotary angles (Su et al. 2021) and T5's bucketed relative position bias (Raffel et al. 2020), per frame count."""

    def __init__(self, *, heads: int, rotary_channels: int, buckets: int, max_distance: int) -> None:
        super().__init__()
        self.buckets, self.max_distance = buckets, max_distance
        # published: the files hold the frequencies, so they are a tensor that is loaded, not a formula.
        exponents = torch.arange(0, rotary_channels, 2, dtype=torch.float32) / rotary_channels
        self.frequencies = nn.Parameter(10000**-exponents, requires_grad=False)
        self.bias = nn.Embedding(buckets, heads)

    def forward(self, frames: int) -> FramePositions:
        device = self.bias.weight.device
        position = torch.arange(frames, device=device)
        bias = self.bias(self._bucket(position[None, :] - position[:, None]))
        angles = torch.outer(position.float(), self.frequencies.float())
        return FramePositions(repeat(angles, "f r -> f (r two)", two=2), rearrange(bias, "i j heads -> heads i j"))

    def _bucket(self, distance: Tensor) -> Tensor:
        """T5's bidirectional buckets: half for each sign, small distances one each, larger ones by logarithm."""
        half = self.buckets // 2
        exact = half // 2
        size = distance.abs()
        logarithmic = torch.log(size.clamp(min=1).float() / exact) / math.log(self.max_distance / exact)
        large = (exact + (logarithmic * (half - exact)).long()).clamp(max=half - 1)
        return torch.where(distance > 0, half, 0) + torch.where(size < exact, size, large)


class RotaryAttention(nn.Module):
    """Self-attention over frames with rotated queries and keys and a position bias; norm before, residual beside."""

    def __init__(self, channels: int, *, heads: int, norm_groups: int, ops: Ops) -> None:
        super().__init__()
        self.heads, self.ops = heads, ops
        # published: this norm has torch's default epsilon, unlike the transformers'.
        self.norm = GroupNorm(channels, groups=norm_groups, eps=1e-5, per_frame=False, ops=ops)
        self.to_qkv = nn.Linear(channels, 3 * channels)
        self.to_out = nn.Linear(channels, channels)

    def forward(self, x: Tensor, shared: FramePositions) -> Tensor:
        from rotary_embedding_torch import apply_rotary_emb

        qkv = rearrange(
            self.to_qkv(self.norm(x)), "b f h w (three heads d) -> three b (h w) heads f d", three=3, heads=self.heads
        )
        q, k, v = qkv.unbind()
        angles = shared.angles.to(q.dtype)
        q, k = apply_rotary_emb(angles, q), apply_rotary_emb(angles, k)
        # As four axes: of five PyTorch computes every score in fp32 and keeps them all, as it has no kernel for that.
        q, k, v = (one.flatten(0, 1) for one in (q, k, v))
        out = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=shared.bias.to(q.dtype)[None])
        out = rearrange(out, "(b h w) heads f d -> b f h w (heads d)", b=len(x), h=x.shape[2])
        return self.ops.add(x, *self.ops.linear(out, self.to_out))


class RotaryTemporalBlock(nn.Module):
    """`repeats` rotary self-attentions over frames, one after the other (the VideoComposer lineage's temporal block).

    Heads are as many as the network's stem has, at every width, so a head has channels / heads channels.
    """

    def __init__(
        self,
        *,
        channels: int,
        heads: int,
        head_channels: int,
        norm_groups: int,
        ops: Ops,
        rotary_channels: int,
        buckets: int,
        max_distance: int,
        repeats: int,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            RotaryAttention(channels, heads=heads, norm_groups=norm_groups, ops=ops) for _ in range(repeats)
        )

    # published: the bias table has one column a head and is shared by all widths, which fixes the number of heads.
    fixed_heads = True

    @classmethod
    def shared_part(
        cls, *, heads: int, head_channels: int, rotary_channels: int, buckets: int, max_distance: int, repeats: int
    ) -> RotaryPositions:
        return RotaryPositions(heads=heads, rotary_channels=rotary_channels, buckets=buckets, max_distance=max_distance)

    def forward(self, x: Tensor, shared: FramePositions) -> Tensor:
        for layer in self.layers:
            x = cast(Tensor, layer(x, shared))
        return x
