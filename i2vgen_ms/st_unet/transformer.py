"""The transformer block that the spatial and the temporal layers share, and the spatial layer.

A block is given two functions of attention: over what, and with which context, is its owner's choice.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, cast

from einops import rearrange
from torch import Tensor, nn

from i2vgen_ms.tensors.layers import GroupNorm, LayerNorm
from i2vgen_ms.tensors.ops import Ops

# published: the norms in front of transformers have this epsilon, all other group norms torch's default.
TRANSFORMER_NORM_EPS = 1e-6


# Keys and values, each `... n heads d`.
KeysValues = tuple[Tensor, Tensor]


class Attention(nn.Module):
    """Multi-head attention: projections without bias to heads, attention, a projection back.

    forward(x, context, attend): `x ... c` asks, the keys and values of the context answer, or of x itself if there is
    none; attend maps q, k, v to their outcome, all `... heads d`. Returns what `ops.linear` does.
    """

    def __init__(self, channels: int, context_channels: int, *, heads: int, head_channels: int, ops: Ops) -> None:
        super().__init__()
        self.heads, self.ops = heads, ops
        inner = heads * head_channels
        self.to_q = nn.Linear(channels, inner, bias=False)
        self.to_k = nn.Linear(context_channels, inner, bias=False)
        self.to_v = nn.Linear(context_channels, inner, bias=False)
        self.to_out = nn.Linear(inner, channels)

    def keys_values(self, context: Tensor) -> KeysValues:
        """Of `context ... d`."""
        return self._heads(self.to_k(context)), self._heads(self.to_v(context))

    def forward(
        self, x: Tensor, context: KeysValues | None, attend: Callable[[Tensor, Tensor, Tensor], Tensor]
    ) -> tuple[Tensor, Tensor | None]:
        if context is None:
            q, k, v = map(self._heads, self.ops.linears(x, (self.to_q, self.to_k, self.to_v)))
        else:
            q, (k, v) = self._heads(self.to_q(x)), context
        return self.ops.linear(attend(q, k, v).flatten(-2), self.to_out)

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1))


class FeedForward(nn.Module):
    """The layers of a gated feed-forward of four times the width: GEGLU, then Linear."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.project_in = nn.Linear(channels, 8 * channels)
        self.project_out = nn.Linear(4 * channels, channels)

    @property
    def layers(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What `ops.feed_forward` is given beside its input."""
        return self.project_in.weight, self.project_in.bias, self.project_out.weight, self.project_out.bias


class TransformerBlock(nn.Module):
    """Two attentions and a feed-forward, each behind a layer norm and beside a residual."""

    def __init__(self, channels: int, *, context_channels: int, heads: int, head_channels: int, ops: Ops) -> None:
        super().__init__()
        self.ops = ops
        self.norm1 = LayerNorm(channels, ops=ops)
        self.attention1 = Attention(channels, channels, heads=heads, head_channels=head_channels, ops=ops)
        self.norm2 = LayerNorm(channels, ops=ops)
        self.attention2 = Attention(channels, context_channels, heads=heads, head_channels=head_channels, ops=ops)
        self.norm3 = LayerNorm(channels, ops=ops)
        self.feed_forward = FeedForward(channels)

    def forward(
        self,
        x: Tensor,
        attend: Callable[[Tensor, Tensor, Tensor], Tensor],
        context: KeysValues | None = None,
        *,
        shift: Tensor | None = None,
        out: Tensor | None = None,
    ) -> Tensor:
        """`x ... c`, put into `out` if given; without a context's keys and values the second attention looks at x.

        shift: `c`, what x still lacks; it may be added in place.
        """
        x, y = self.norm1.of_shifted(x, shift)
        x, y = self.norm2.of_sum(x, *self.attention1(y, None, attend))
        return self._rest(x, y, attend, context, out)

    def before(
        self,
        x: Tensor,
        attend: Callable[[Tensor, Tensor, Tensor], Tensor],
        *,
        shift: Tensor | None = None,
        out: Tensor | None = None,
    ) -> Tensor:
        """The first attention alone, which no context reaches."""
        x, y = self.norm1.of_shifted(x, shift)
        return self.ops.add(x, *self.attention1(y, None, attend), out=out)

    def after(
        self,
        x: Tensor,
        attend: Callable[[Tensor, Tensor, Tensor], Tensor],
        context: KeysValues,
        *,
        out: Tensor | None = None,
    ) -> Tensor:
        """What `before` leaves to be done."""
        return self._rest(x, self.norm2(x), attend, context, out)

    def _rest(
        self,
        x: Tensor,
        y: Tensor,
        attend: Callable[[Tensor, Tensor, Tensor], Tensor],
        context: KeysValues | None,
        out: Tensor | None,
    ) -> Tensor:
        y, shift = self.attention2(y, context, attend)
        norm = self.norm3.weight, self.norm3.bias
        return self.ops.feed_forward_of_sum(x, y, norm, self.feed_forward.layers, shift=shift, out=out)


class Begun(NamedTuple):
    """What a spatial transformer has made before it looks at a context, to go on with several: of `x: b f h w c` tokens
    `(b f) (h w) c`."""

    x: Tensor
    tokens: Tensor


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

    def keys_values(self, context: Tensor) -> KeysValues:
        """All that this layer makes of the context `b n d`."""
        return self.block.attention2.keys_values(context)

    def forward(self, given: Tensor | Begun, context: Tensor | KeysValues | None) -> Tensor | Begun:
        """`given: b f h w c` and the context `(g b) n d`, or its keys and values, in g groups; gives `(g b) f h w c`.

        With several groups what comes before the context is computed once for all, and repeated then. Without a
        context that alone is computed; the `Begun` that comes of it can be given in place of x with each context.
        """
        if context is None:
            return self._begun(cast(Tensor, given))
        if not isinstance(context, tuple):
            context = self.keys_values(context)
        if isinstance(given, Tensor) and len(given) < len(context[0]):
            given = self._begun(given)
        rest: Callable[..., Tensor]
        if isinstance(given, Tensor):
            x = given
            tokens, shift = self._tokens(x)
            rest = partial(self._whole, shift=shift)
        else:
            (x, tokens), rest = given, self._after
        del given
        if len(x) < len(context[0]):
            groups = len(context[0]) // len(x)
            x, tokens = x.repeat(groups, 1, 1, 1, 1), tokens.repeat(groups, 1, 1)
        # Every frame of an item looks at the same: a view where there is one item.
        k, v = (one.unsqueeze(1).expand(-1, x.shape[1], -1, -1, -1).flatten(0, 1) for one in context)
        tokens = self.ops.in_parts(rest, tokens, k, v, axis=0)
        tokens = rearrange(tokens, "(b f) (h w) c -> b f h w c", b=len(x), h=x.shape[2])
        return self.ops.add(x, *self.ops.linear(tokens, self.project_out))

    def _begun(self, x: Tensor) -> Begun:
        tokens, shift = self._tokens(x)
        return Begun(x, self.ops.in_parts(partial(self._before, shift=shift), tokens, axis=0))

    def _tokens(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Tokens `(b f) (h w) c` of `x: b f h w c`, and what they still lack."""
        tokens, shift = self.ops.linear(self.norm(x), self.project_in)
        return rearrange(tokens, "b f h w c -> (b f) (h w) c"), shift

    def _whole(
        self, tokens: Tensor, k: Tensor, v: Tensor, *, shift: Tensor | None, out: Tensor | None = None
    ) -> Tensor:
        return cast(Tensor, self.block(tokens, self.ops.attention, (k, v), shift=shift, out=out))

    def _before(self, tokens: Tensor, *, shift: Tensor | None, out: Tensor | None = None) -> Tensor:
        return self.block.before(tokens, self.ops.attention, shift=shift, out=out)

    def _after(self, tokens: Tensor, k: Tensor, v: Tensor, *, out: Tensor | None = None) -> Tensor:
        return self.block.after(tokens, self.ops.attention, (k, v), out=out)
