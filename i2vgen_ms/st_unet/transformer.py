"""The transformer block that the spatial and the temporal layers share, and the spatial layer.

A block is given two functions of attention: over what, and with which context, is its owner's choice.
"""

from __future__ import annotations

from collections.abc import Callable

from einops import rearrange
from torch import Tensor, nn

from i2vgen_ms.tensors.layers import GroupNorm, LayerNorm
from i2vgen_ms.tensors.ops import Ops

# published: the norms in front of transformers have this epsilon, all other group norms torch's default.
TRANSFORMER_NORM_EPS = 1e-6


class Attention(nn.Module):
    """Multi-head attention: projections without bias to heads, attention, a projection back.

    forward(x, context, attend): `x ... c` asks, `context ... d` answers; attend maps q, k, v to their outcome, all
    `... heads d`.
    """

    def __init__(self, channels: int, context_channels: int, *, heads: int, head_channels: int) -> None:
        super().__init__()
        self.heads = heads
        inner = heads * head_channels
        self.to_q = nn.Linear(channels, inner, bias=False)
        self.to_k = nn.Linear(context_channels, inner, bias=False)
        self.to_v = nn.Linear(context_channels, inner, bias=False)
        self.to_out = nn.Linear(inner, channels)

    def forward(self, x: Tensor, context: Tensor, attend: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Tensor:
        q, k, v = self.to_q(x), self.to_k(context), self.to_v(context)
        q, k, v = (rearrange(t, "... (heads d) -> ... heads d", heads=self.heads) for t in (q, k, v))
        return self.to_out(rearrange(attend(q, k, v), "... heads d -> ... (heads d)"))


class FeedForward(nn.Module):
    """Gated feed-forward of four times the width: GEGLU, then Linear."""

    def __init__(self, channels: int, *, ops: Ops) -> None:
        super().__init__()
        self.ops = ops
        self.project_in = nn.Linear(channels, 8 * channels)
        self.project_out = nn.Linear(4 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.project_in, self.project_out
        return self.ops.feed_forward(x, first.weight, first.bias, second.weight, second.bias)


class TransformerBlock(nn.Module):
    """Two attentions and a feed-forward, each behind a layer norm and beside a residual."""

    def __init__(self, channels: int, *, context_channels: int, heads: int, head_channels: int, ops: Ops) -> None:
        super().__init__()
        self.norm1 = LayerNorm(channels, ops=ops)
        self.attention1 = Attention(channels, channels, heads=heads, head_channels=head_channels)
        self.norm2 = LayerNorm(channels, ops=ops)
        self.attention2 = Attention(channels, context_channels, heads=heads, head_channels=head_channels)
        self.norm3 = LayerNorm(channels, ops=ops)
        self.feed_forward = FeedForward(channels, ops=ops)

    def forward(
        self, x: Tensor, attend: Callable[[Tensor, Tensor, Tensor], Tensor], context: Tensor | None = None
    ) -> Tensor:
        """`x ... c`; without a context the second attention looks at x too."""
        y = self.norm1(x)
        x = x + self.attention1(y, y, attend)
        y = self.norm2(x)
        x = x + self.attention2(y, y if context is None else context, attend)
        return x + self.feed_forward(self.norm3(x))


class SpatialTransformer(nn.Module):
    """Attention within each frame, then to the context: norm, Linear, one block, Linear, residual."""

    def __init__(
        self, channels: int, *, context_channels: int, heads: int, head_channels: int, norm_groups: int, ops: Ops
    ) -> None:
        super().__init__()
        inner = heads * head_channels
        self.ops = ops
        self.norm = GroupNorm(channels, groups=norm_groups, eps=TRANSFORMER_NORM_EPS, per_frame=True, ops=ops)
        self.project_in = nn.Linear(channels, inner)
        self.block = TransformerBlock(
            inner, context_channels=context_channels, heads=heads, head_channels=head_channels, ops=ops
        )
        self.project_out = nn.Linear(inner, channels)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """`x: b f h w c`, `context: (b f) n d`."""
        tokens = rearrange(self.project_in(self.norm(x)), "b f h w c -> (b f) (h w) c")
        tokens = self.ops.in_parts(self._attend, tokens, context, axis=0)
        return x + self.project_out(rearrange(tokens, "(b f) (h w) c -> b f h w c", b=x.shape[0], h=x.shape[2]))

    def _attend(self, tokens: Tensor, context: Tensor) -> Tensor:
        out: Tensor = self.block(tokens, self.ops.attention, context)
        return out
