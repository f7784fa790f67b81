"""Group normalisation and SiLU over `b f h w c` in one reading for the statistics and one for the result.

PyTorch's kernel has one block a group, which leaves most of a chip idle where a group is a whole video; here the places
are split among many, and what they find is merged (Chan et al. 1979, "Updating formulae", equation 2.1). Statistics
are fp32 and never differences of large sums. Sizes that change no instruction are not compiled in, as a first call
waits for each compilation.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from i2vgen_ms.runtime.kernels.grids import cdiv, power_of_2

# Channels and places of a tile; channels times the two bytes of fp16 make a whole memory line.
COLUMNS, ROWS = 64, 64
# Places of a tile of the statistics, which keeps two sums for each of its values, and tiles that are read at a time.
SUMMED, TILES = 16, 2
# Places that one program of the statistics reads: at least and at most, and so few that there are so many programs.
SHORTEST, SPAN, PROGRAMS = 256, 2048, 1024
# A group of so many values is done in one launch, by one program that keeps it in registers.
WHOLE = 16384
# Channels that a thread reads at once at most: 16 bytes of fp16.
READ = 8
# Values of a tile of the merge, the same for any number of spans, so that it is compiled once a width.
MERGED = 2048


@triton.jit(do_not_specialize=["places", "units", "frames", "shift_stride"])
def _whole(
    x,
    weight,
    bias,
    shift,
    out,
    places,
    channels,
    units,
    frames,
    shift_stride,
    eps,
    SHIFT: tl.constexpr,
    SILU: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
    UNIT: tl.constexpr,
):
    """Statistics and result of one group of an item, `units` times `UNIT` channels wide; grid (group, item)."""
    item = tl.program_id(1).to(tl.int64)
    width = units * UNIT  # of which the compiler knows that so many channels are read at once
    row, inside = tl.arange(0, ROWS), tl.arange(0, WIDTH)
    column = tl.program_id(0) * width + inside
    there = (row < places)[:, None] & (inside < width)[None, :]
    place = (item * places + row)[:, None] * channels + column[None, :]
    values = tl.load(x + place, mask=there, other=0.0).to(tl.float32)
    if SHIFT:
        more = tl.load(shift + (item // frames) * shift_stride + column, mask=inside < width, other=0.0)
        values = tl.where(there, values + more.to(tl.float32)[None, :], 0.0)
    mean = tl.sum(values) / (places * width)
    apart = tl.where(there, values - mean, 0.0)
    scale = tl.rsqrt(tl.sum(apart * apart) / (places * width) + eps)
    y = apart * scale * tl.load(weight + column, mask=inside < width, other=0.0).to(tl.float32)[None, :]
    y += tl.load(bias + column, mask=inside < width, other=0.0).to(tl.float32)[None, :]
    if SILU:
        y = y * tl.sigmoid(y)
    tl.store(out + place, y.to(out.dtype.element_ty), mask=there)


@triton.jit(do_not_specialize=["places", "splits", "span", "blocks"])
def _statistics(
    x,
    means,
    squares,
    places,
    channels,
    splits,
    span,
    blocks,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    TILES: tl.constexpr,
):
    """Mean and sum of squared differences of each channel over a span of places; grid (split and block, item)."""
    item, split = tl.program_id(1).to(tl.int64), tl.program_id(0) // blocks
    column = (tl.program_id(0) % blocks) * COLUMNS + tl.arange(0, COLUMNS)
    inside = (column < channels)[None, :]
    first = split * span
    last = tl.minimum(first + span, places)
    row = first + tl.arange(0, ROWS)
    x += item * places * channels + column[None, :]
    # Differences from the first tile's mean are small beside those that the squares are asked for, or they are a tile's
    # share of them; so that the sums lose no digits, and are one for each lane until the end.
    there = (row < last)[:, None] & inside
    values = tl.load(x + row[:, None].to(tl.int64) * channels, mask=there, other=0.0).to(tl.float32)
    centre = tl.sum(values, 0) / tl.minimum(last - first, ROWS).to(tl.float32)
    apart = tl.where(there, values - centre[None, :], 0.0)
    total, square = apart, apart * apart
    # Several tiles at a time: all are asked for before the first is waited for.
    for start in range(first + ROWS, last, ROWS * TILES):
        rows = start + tl.arange(0, ROWS * TILES)
        some = (rows < last)[:, None] & inside
        read = tl.load(x + rows[:, None].to(tl.int64) * channels, mask=some, other=0.0).to(tl.float32)
        tiles = tl.where(some, read - centre[None, :], 0.0).reshape(TILES, ROWS, COLUMNS)
        total += tl.sum(tiles, 0)
        square += tl.sum(tiles * tiles, 0)
    shift = tl.sum(total, 0) / (last - first).to(tl.float32)
    place = (item * splits + split) * channels + column
    tl.store(means + place, centre + shift, mask=column < channels)
    tl.store(squares + place, tl.sum(square, 0) - shift * shift * (last - first).to(tl.float32), mask=column < channels)


@triton.jit(do_not_specialize=["places", "splits", "span", "width", "frames", "shift_stride"])
def _merge(
    means,
    squares,
    weight,
    bias,
    shift,
    scales,
    shifts,
    places,
    channels,
    splits,
    span,
    width,
    frames,
    shift_stride,
    eps,
    SHIFT: tl.constexpr,
    SPLITS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """What each channel is multiplied with and what is added; grid (item, group)."""
    item, group = tl.program_id(0).to(tl.int64), tl.program_id(1)
    inside = tl.arange(0, WIDTH)
    column = group * width + inside
    more = tl.zeros((WIDTH,), tl.float32)
    if SHIFT:
        more += tl.load(shift + (item // frames) * shift_stride + column, mask=inside < width, other=0.0).to(tl.float32)
    total = tl.sum(more)
    for start in range(0, splits, SPLITS):
        split = start + tl.arange(0, SPLITS)
        there = (split < splits)[:, None] & (inside < width)[None, :]
        rows = tl.maximum(tl.minimum(places - split * span, span), 0).to(tl.float32)
        place = (item * splits + split)[:, None] * channels + column[None, :]
        total += tl.sum(tl.load(means + place, mask=there, other=0.0) * (rows / places)[:, None])
    mean = total / width
    squared = 0.0
    for start in range(0, splits, SPLITS):
        split = start + tl.arange(0, SPLITS)
        there = (split < splits)[:, None] & (inside < width)[None, :]
        rows = tl.maximum(tl.minimum(places - split * span, span), 0).to(tl.float32)
        place = (item * splits + split)[:, None] * channels + column[None, :]
        apart = tl.where(there, tl.load(means + place, mask=there, other=0.0) + more[None, :] - mean, 0.0)
        inner = tl.load(squares + place, mask=there, other=0.0)
        squared += tl.sum(inner / places + apart * apart * (rows / places)[:, None])
    scale = tl.load(weight + column, mask=inside < width, other=0.0).to(tl.float32) * tl.rsqrt(squared / width + eps)
    offset = tl.load(bias + column, mask=inside < width, other=0.0).to(tl.float32) + (more - mean) * scale
    tl.store(scales + item * channels + column, scale, mask=inside < width)
    tl.store(shifts + item * channels + column, offset, mask=inside < width)


@triton.jit(do_not_specialize=["places", "blocks"])
def _apply(
    x,
    out,
    scales,
    shifts,
    places,
    channels,
    blocks,
    SILU: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """The result; grid (tile, item)."""
    tile, item = tl.program_id(0), tl.program_id(1).to(tl.int64)
    row = (tile // blocks) * ROWS + tl.arange(0, ROWS)
    column = (tile % blocks) * COLUMNS + tl.arange(0, COLUMNS)
    there = (row < places)[:, None] & (column < channels)[None, :]
    scale = tl.load(scales + item * channels + column, mask=column < channels, other=0.0)
    shift = tl.load(shifts + item * channels + column, mask=column < channels, other=0.0)
    place = (item * places + row)[:, None] * channels + column[None, :]
    y = tl.load(x + place, mask=there, other=0.0).to(tl.float32) * scale[None, :] + shift[None, :]
    if SILU:
        y = y * tl.sigmoid(y)
    tl.store(out + place, y.to(out.dtype.element_ty), mask=there)


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
    """`tensors.ops.group_norm`, in one launch or three, beside the result with almost no memory."""
    x = x.contiguous()
    channels = x.shape[-1]
    items = x.shape[0] * x.shape[1] if per_frame else x.shape[0]
    places = x.numel() // (items * channels)
    width = channels // groups
    tall, wide, unit = power_of_2(places), power_of_2(width), math.gcd(width, READ)
    if tall * wide <= WHOLE:
        added, out = _by_video(x, bias if shift is None else shift), torch.empty_like(x)
        with torch.cuda.device_of(x):
            _whole[(groups, items)](
                *(x, weight, bias, added, out, places, channels, width // unit, items // len(x), added.stride(0), eps),
                SHIFT=shift is not None,
                SILU=silu,
                ROWS=tall,
                WIDTH=wide,
                UNIT=unit,
                num_warps=4 if tall * wide <= WHOLE // 2 else 8,
            )
        return out
    scales, offsets = _scales(x, weight, bias, shift, groups=groups, eps=eps, items=items)
    return _scaled(x, scales, offsets, silu=silu)


def group_scales(
    x: Tensor, weight: Tensor, bias: Tensor, *, groups: int, eps: float, rows: int, shift: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """`tensors.moments.group_scales`; of an x without gaps it copies nothing, whatever `rows` is."""
    b, f, _, _, c = x.shape
    made = _scales(x.contiguous(), weight, bias, shift, groups=groups, eps=eps, items=b * f)
    scales, offsets = (one.reshape(b, f, 1, 1, c) for one in made)
    return scales, offsets


def scaled_silu(x: Tensor, scale: Tensor, offset: Tensor) -> Tensor:
    """`tensors.moments.scaled_silu`."""
    items, channels = x.shape[0] * x.shape[1], x.shape[-1]
    scales, offsets = (one.reshape(items, channels) for one in (scale, offset))
    return _scaled(x.contiguous(), scales, offsets, silu=True)


def _scales(
    x: Tensor, weight: Tensor, bias: Tensor, shift: Tensor | None, *, groups: int, eps: float, items: int
) -> tuple[Tensor, Tensor]:
    """What each channel of each item of `x` is multiplied with, and what is added: `items c`, fp32."""
    channels = x.shape[-1]
    places, width, blocks = x.numel() // (items * channels), channels // groups, cdiv(channels, COLUMNS)
    added = _by_video(x, bias if shift is None else shift)
    wide, span = power_of_2(width), _span(places, items * blocks)
    splits = cdiv(places, span)
    means, squares = x.new_empty((2, items, splits, channels), dtype=torch.float32)
    scales, offsets = x.new_empty((2, items, channels), dtype=torch.float32)
    with torch.cuda.device_of(x):
        _statistics[(splits * blocks, items)](
            *(x, means, squares, places, channels, splits, span, blocks), ROWS=SUMMED, COLUMNS=COLUMNS, TILES=TILES
        )
        _merge[(items, groups)](
            *(means, squares, weight, bias, added, scales, offsets),
            *(places, channels, splits, span, width, items // len(x), added.stride(0), eps),
            SHIFT=shift is not None,
            SPLITS=max(1, MERGED // wide),
            WIDTH=wide,
            num_warps=8,
        )
    return scales, offsets


def _scaled(x: Tensor, scales: Tensor, offsets: Tensor, *, silu: bool) -> Tensor:
    items, channels = scales.shape
    places, blocks, out = x.numel() // (items * channels), cdiv(channels, COLUMNS), torch.empty_like(x)
    with torch.cuda.device_of(x):
        _apply[(cdiv(places, ROWS) * blocks, items)](
            x, out, scales, offsets, places, channels, blocks, SILU=silu, ROWS=ROWS, COLUMNS=COLUMNS
        )
    return out


def _by_video(x: Tensor, shift: Tensor) -> Tensor:
    """A shift of `c` or `b c`, one for each video."""
    return shift.contiguous().expand(len(x), -1)


def _span(places: int, others: int) -> int:
    """How many places one program takes, where for each span there are so many others; whole tiles."""
    wanted = cdiv(places * others, PROGRAMS)
    return min(SPAN, max(SHORTEST, cdiv(wanted, SUMMED) * SUMMED))
