"""The table of operations that networks are handed at construction, and its plain PyTorch definition.

Everything here takes activations as `b f h w c` in memory and returns them so. A network knows what it computes (which
weights, which order); the table knows how. The functions of this file are the definition: they run on every device, in
training too, and anything faster has to agree with them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from i2vgen_ms.tensors import attention, moments

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]


def group_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    groups: int,
    eps: float,
    per_frame: bool,
    silu: bool = False,
    shift: Tensor | None = None,
) -> Tensor:
    """Group normalisation (Wu and He 2018) of `x: b f h w c` over channel groups, then SiLU if asked.

    per_frame: statistics of each frame on its own; otherwise of all frames of a video together. shift: `c` or `b c`,
    what x still lacks: it is added first.
    """
    if shift is not None:
        x = x + shift.reshape(-1, 1, 1, 1, shift.shape[-1])
    pattern = "b f h w c -> (b f) c h w" if per_frame else "b f h w c -> b c f (h w)"
    y = F.group_norm(rearrange(x, pattern), groups, weight, bias, eps)
    y = F.silu(y) if silu else y
    if per_frame:
        return rearrange(y, "(b f) c h w -> b f h w c", b=x.shape[0])
    return rearrange(y, "b c f (h w) -> b f h w c", h=x.shape[2])


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, *, eps: float = 1e-5) -> Tensor:
    """Layer normalisation (Ba et al. 2016) over the last axis."""
    return F.layer_norm(x, weight.shape, weight, bias, eps)


def add(x: Tensor, y: Tensor, bias: Tensor | None = None, *, out: Tensor | None = None) -> Tensor:
    """`x + y + bias`, the bias `c` along the last axis; the result is put into `out` if that is given."""
    total = x + y
    if bias is not None:
        total += bias
    return total if out is None else out.copy_(total)


def add_layer_norm(
    x: Tensor, y: Tensor, weight: Tensor, bias: Tensor, *, eps: float = 1e-5, shift: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """`x + y + shift`, and the layer normalisation of it. shift: `c`, what y still lacks."""
    total = add(x, y, shift)
    return total, layer_norm(total, weight, bias, eps=eps)


def shift_layer_norm(
    x: Tensor, shift: Tensor, weight: Tensor, bias: Tensor, *, eps: float = 1e-5
) -> tuple[Tensor, Tensor]:
    """`x + shift`, which may be put in the place of x, and the layer normalisation of it. shift: `c`, what x lacks."""
    total = x + shift
    return total, layer_norm(total, weight, bias, eps=eps)


def conv_spatial(
    x: Tensor, weight: Tensor, bias: Tensor | None, *, stride: int = 1, padding: tuple[int, int] = (1, 1)
) -> Tensor:
    """A convolution of each frame of `x: b f h w c` with `weight: o i kh kw`; padding is (rows, columns)."""
    y = F.conv2d(x.flatten(0, 1).movedim(-1, 1), weight, bias, stride=stride, padding=padding)
    return y.movedim(1, -1).unflatten(0, x.shape[:2])


def conv_temporal(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A convolution along the frames of `x: b f h w c` with `weight: o i k 1`, k odd, same number of frames."""
    y = F.conv2d(rearrange(x, "b f h w c -> b c f (h w)"), weight, bias, padding=(weight.shape[2] // 2, 0))
    return rearrange(y, "b c f (h w) -> b f h w c", h=x.shape[2])


def join(x: Tensor, y: Tensor) -> Tensor:
    """`x: (g b) f h w c` and `y: b f h w d` side by side, `(g b) f h w (c d)`: y beside each of g groups of items."""
    groups = len(x) // len(y)
    return torch.cat([x, y if groups == 1 else y.repeat(groups, 1, 1, 1, 1)], dim=-1)


def double(x: Tensor, *, crop: int = 0) -> Tensor:
    """Each place of `x: b f h w c` as two by two, then `crop` rows off at the top and the bottom."""
    x = repeat(x, "b f h w c -> b f (h two) (w also) c", two=2, also=2)
    return x[:, :, crop : x.shape[2] - crop].contiguous()


def conv_doubled(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`conv_spatial` with `weight: o i 3 3` of `x: b f h w c` at twice its size, each place repeated."""
    larger = F.interpolate(rearrange(x, "b f h w c -> (b f) c h w"), scale_factor=2.0, mode="nearest")
    return conv_spatial(rearrange(larger, "(b f) c h w -> b f h w c", b=x.shape[0]), weight, bias)


def conv_halved(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`conv_spatial` with stride 2 that sees one row and one column of zeros beyond the end, none before the first."""
    return conv_spatial(F.pad(x, (0, 0, 0, 1, 0, 1)), weight, bias, stride=2, padding=(0, 0))


def geglu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Gated linear unit with exact GELU (Shazeer 2020): `value * gelu(gate)`; `weight: 2o i`, value before gate."""
    return gated(F.linear(x, weight, bias))


def gated(x: Tensor) -> Tensor:
    """`value * gelu(gate)` of the two halves of the last axis."""
    value, gate = x.chunk(2, dim=-1)
    return value * F.gelu(gate)


def feed_forward(x: Tensor, weight_in: Tensor, bias_in: Tensor, weight_out: Tensor, bias_out: Tensor) -> Tensor:
    """The gated feed-forward layer on `x: ... i`: `geglu` to a width h, then Linear; weights `2h i` and `o h`."""
    return F.linear(geglu(x, weight_in, bias_in), weight_out, bias_out)


def linears(x: Tensor, layers: Sequence[nn.Module]) -> tuple[Tensor, ...]:
    """Several layers of the same `x: ... i`, each to its own width `... o`."""
    return tuple(layer(x) for layer in layers)


def linear(x: Tensor, layer: nn.Module) -> tuple[Tensor, Tensor | None]:
    """A layer of `x: ... i`, and what its result `... o` still lacks, `o`: that is added by who reads it next.

    Here it lacks nothing.
    """
    return layer(x), None


def in_parts(function: Callable[..., Tensor], *inputs: Tensor, axis: int) -> Tensor:
    """`function(*inputs)`, whose output has the first input's shape, and of which no place along `axis` sees another.

    So it may be computed some places at a time; here it is computed at once. The function takes `out` as well: where
    to put its result, for one that is done in parts.
    """
    return function(*inputs)


def by_frames(function: Callable[..., Tensor], parts: list[Tensor], shape: tuple[int, ...]) -> Tensor:
    """`function(parts)`, of `shape`, where no frame of what is in the list, `b f h w c`, sees another.

    So it may be computed some frames at a time; here it is computed at once. The list is the function's to empty, so
    that what is in it is free as soon as it can be. The function takes `out` as well: where to put its result.
    """
    return function(parts)


# What a transformer block makes of its input for a moment, in the input's size: both layers of the gated feed-forward,
# and what they are between.
BLOCK_ACTIVATIONS = 14


@dataclass(frozen=True)
class Ops:
    """What a network calls for its heavy work. The defaults are the plain definitions of this module.

    peak, parts: how much a forward of the ST-UNet takes with them: so many activations of the finest level, of which
    skips are about a third; and what is done in parts, whatever the size, in bytes for each byte of a number, though
    never more than `BLOCK_ACTIVATIONS`. Those of the defaults are of the operations of `runtime.chunked`. together: up
    to how many places `b f h w` of latents several conditions are one batch; of more, one after the other is computed.
    """

    attention: Attention = attention.sdpa
    frame_attention: Attention | None = None
    group_norm: Callable[..., Tensor] = group_norm
    group_scales: Callable[..., tuple[Tensor, Tensor]] = moments.group_scales
    scaled_silu: Callable[..., Tensor] = moments.scaled_silu
    layer_norm: Callable[..., Tensor] = layer_norm
    add: Callable[..., Tensor] = add
    add_layer_norm: Callable[..., tuple[Tensor, Tensor]] = add_layer_norm
    shift_layer_norm: Callable[..., tuple[Tensor, Tensor]] = shift_layer_norm
    conv_spatial: Callable[..., Tensor] = conv_spatial
    conv_temporal: Callable[..., Tensor] = conv_temporal
    conv_doubled: Callable[..., Tensor] = conv_doubled
    conv_halved: Callable[..., Tensor] = conv_halved
    join: Callable[..., Tensor] = join
    double: Callable[..., Tensor] = double
    feed_forward: Callable[..., Tensor] = feed_forward
    feed_forward_onto: Callable[..., Tensor] | None = None
    linears: Callable[..., tuple[Tensor, ...]] = linears
    linear: Callable[..., tuple[Tensor, Tensor | None]] = linear
    in_parts: Callable[..., Tensor] = in_parts
    by_frames: Callable[..., Tensor] = by_frames
    peak: float = 11
    parts: int = 2**28
    together: float = math.inf

    def activation_bytes(self, activation: int, itemsize: int) -> int:
        """What a forward of the ST-UNet takes beside its weights and input, of the bytes of such an activation."""
        return int(self.peak * activation + min(self.parts * itemsize, BLOCK_ACTIVATIONS * activation))

    def feed_forward_of_sum(
        self,
        x: Tensor,
        y: Tensor,
        norm: tuple[Tensor, Tensor],
        layers: tuple[Tensor, Tensor, Tensor, Tensor],
        *,
        shift: Tensor | None = None,
        out: Tensor | None = None,
    ) -> Tensor:
        """How a transformer block ends: `x + y + shift`, and the feed-forward of its layer norm added to it.

        norm: the layer norm's weight and bias. layers: the arguments of `feed_forward` after the first. shift: `c`,
        what y still lacks. The result is put into `out` if that is given.
        """
        if self.feed_forward_onto is not None:
            return self.feed_forward_onto(x, y, norm, layers, shift=shift, out=out)
        total, normal = self.add_layer_norm(x, y, *norm, shift=shift)
        return self.add(total, self.feed_forward(normal, *layers), out=out)

    def attend_over_frames(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention over frames at every place; q, k, v and the result `b f n heads d`."""
        if self.frame_attention is not None:
            return self.frame_attention(q, k, v)
        return attention.over_frames(self.attention, q, k, v)
