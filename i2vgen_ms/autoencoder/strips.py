"""One frame in strips of rows: what the coders compute, with a part of the memory and without a seam.

Given a coder of coder.py, which knows nothing of it. A normalisation has the statistics of the whole frame, which are
taken first, and a convolution of a strip sees the rows beside it; so the result is the coder's own, and nothing is
blended. A strip leaves nothing behind but its part of a block's output. What needs little is done at once, which is all
but the finest levels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from i2vgen_ms.autoencoder.blocks import Downsample, Middle, ResidualBlock, Upsample
from i2vgen_ms.autoencoder.coder import Decoder, Encoder
from i2vgen_ms.tensors.layers import GroupNorm, SpatialConvolution

# Of a limit, what a strip may take beside the tensors that stay whole.
SHARE = 1 / 8
# The rows beside a strip, one on either side, that its convolution sees.
HALO = 2


@dataclass(frozen=True)
class Tail:
    """What a coder ends with."""

    norm: GroupNorm
    head: SpatialConvolution

    def __call__(self, x: Tensor) -> Tensor:
        return self.head(self.norm(x, silu=True))


Part: TypeAlias = ResidualBlock | Downsample | Upsample | Middle | Tail


@dataclass(frozen=True)
class Sizes:
    """Channels for each place of a part's input: the most alive at once when all of it is done at once, what is whole
    when it is done in strips, and the most of a strip beside that."""

    at_once: int
    whole: int
    strip: int


def coded(coder: Encoder | Decoder, x: Tensor, *, limit: int) -> Tensor:
    """`coder(x)` for `x: b f h w c`, in strips wherever doing all at once would take more than `limit` bytes.

    What stays whole may take more than that. Without gradients: blocks write into what they read.
    """
    x = coder.stem(x)
    for part in _parts(coder):
        x = _done(part, x, limit)
    return x


def peak_bytes(coder: Encoder | Decoder, height: int, width: int, *, itemsize: int, limit: int) -> int:
    """An estimate of what `coded` needs for one frame of that many pixels, beside the weights and the frame."""
    if isinstance(coder, Decoder):
        factor = 2 ** (len(coder.levels) - 1)
        height, width = height // factor, width // factor
    most = 0
    for part in _parts(coder):
        sizes, row = _sizes(part), width * itemsize
        needed = sizes.at_once * height * row
        if sizes.strip and needed > limit:
            strip = min(height, _rows(sizes, row, limit) + HALO)
            needed = (sizes.whole * height + sizes.strip * strip) * row
        most = max(most, needed)
        if isinstance(part, Downsample):
            height, width = height // 2, width // 2
        elif isinstance(part, Upsample):
            height, width = 2 * height, 2 * width
    return most


def _parts(coder: Encoder | Decoder) -> Iterator[Part]:
    """What a coder does after its stem, in its order."""
    levels: list[Any] = list(coder.levels)
    if isinstance(coder, Decoder):
        levels.reverse()
        yield coder.middle
    for level in levels:
        yield from level.blocks
        if not isinstance(level.step, nn.Identity):
            yield level.step
    if isinstance(coder, Encoder):
        yield coder.middle
    yield Tail(coder.norm, coder.head)


def _sizes(part: Part) -> Sizes:
    match part:
        case ResidualBlock():
            outputs, inputs = part.conv1.weight.shape[:2]
            # A normalised strip is there in fp32 and in the network's type. Before the second convolution it is put
            # together, and after it, it meets the shortcut.
            return Sizes(part.peak_channels, inputs + outputs, max(3 * inputs + outputs, 6 * outputs))
        case Tail():
            outputs, inputs = part.head.weight.shape[:2]
            return Sizes(3 * inputs + outputs, inputs + outputs, 3 * inputs + outputs)
        case Downsample():
            channels = part.conv.weight.shape[0]
            return Sizes(3 * channels, 2 * channels, 2 * channels)  # a copy with one more row and column, and a quarter
        case Upsample():
            channels = part.conv.weight.shape[0]
            return Sizes(9 * channels, 5 * channels, 8 * channels)  # a copy of four times the size, and as much made
        case Middle():
            return Sizes(part.block1.peak_channels, 0, 0)  # attention sees all places, so there are no strips


def _rows(sizes: Sizes, row: int, limit: int) -> int:
    """How many rows a strip has, where a channel of one takes `row` bytes; at least one."""
    return max(1, int(SHARE * limit) // (sizes.strip * row) - HALO)


def _done(part: Part, x: Tensor, limit: int) -> Tensor:
    sizes, channel = _sizes(part), x[..., 0].numel() * x.element_size()
    if isinstance(part, Middle) or sizes.at_once * channel <= limit:
        y: Tensor = part(x)
        return y
    rows = _rows(sizes, channel // x.shape[2], limit)
    match part:
        case ResidualBlock():
            return _residual(part, x, rows)
        case Tail():
            return _normed_convolution(part.norm, part.head, x, rows, bias=True)
        case Downsample():
            return _halved(part, x, rows)
        case Upsample():
            return _doubled(part, x, rows)


def _residual(block: ResidualBlock, x: Tensor, rows: int) -> Tensor:
    """The block on `x: b f h w c`. Its output takes the place of what is between its convolutions, strip by strip."""
    h = _normed_convolution(block.norm1, block.conv1, x, rows, bias=False)
    ops, (scale, offset) = block.ops, _scales(block.norm2, h, rows, shift=block.conv1.bias)
    above = h[:, :, :0]
    for first, last in _spans(h.shape[2], rows):
        seen = torch.cat([above, h[:, :, first : last + 1]], dim=2)
        top = above.shape[2]
        above = h[:, :, last - 1 : last].clone()  # the next strip sees this row, which is no more then
        y = block.conv2(ops.scaled_silu(seen, scale, offset), bias=False)[:, :, top : top + last - first]
        ops.add(block.shortcut(x[:, :, first:last]), y, block.conv2.bias, out=h[:, :, first:last])
    return h


def _normed_convolution(norm: GroupNorm, conv: SpatialConvolution, x: Tensor, rows: int, *, bias: bool) -> Tensor:
    """Normalisation, SiLU and convolution of `x: b f h w c`, with the convolution's bias or without."""
    scale, offset = _scales(norm, x, rows)
    out = x.new_empty(*x.shape[:-1], conv.weight.shape[0])
    for first, last in _spans(x.shape[2], rows):
        top = max(0, first - 1)
        y = conv(norm.ops.scaled_silu(x[:, :, top : last + 1], scale, offset), bias=bias)
        out[:, :, first:last] = y[:, :, first - top : last - top]
    return out


def _halved(step: Downsample, x: Tensor, rows: int) -> Tensor:
    b, f, h, w, c = x.shape
    out = x.new_empty(b, f, h // 2, w // 2, c)
    for first, last in _spans(h // 2, max(1, rows // 2)):
        # One row more, which is the one of zeros at the end; given it, the step adds another that nothing sees.
        out[:, :, first:last] = step(x[:, :, 2 * first : 2 * last + 1])
    return out


def _doubled(step: Upsample, x: Tensor, rows: int) -> Tensor:
    b, f, h, w, c = x.shape
    out = x.new_empty(b, f, 2 * h, 2 * w, c)
    for first, last in _spans(h, rows):
        top = max(0, first - 1)
        y = step(x[:, :, top : last + 1])
        out[:, :, 2 * first : 2 * last] = y[:, :, 2 * (first - top) : 2 * (last - top)]
    return out


def _scales(norm: GroupNorm, x: Tensor, rows: int, *, shift: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """What the normalisation of each frame of `x + shift` multiplies x with, and what it adds."""
    return norm.ops.group_scales(x, norm.weight, norm.bias, groups=norm.groups, eps=norm.eps, rows=rows, shift=shift)


def _spans(rows: int, most: int) -> Iterator[tuple[int, int]]:
    """(first, beyond the last) of strips of at most so many rows."""
    return ((first, min(rows, first + most)) for first in range(0, rows, most))
