"""Group normalisation and SiLU over `b f h w c` in one reading for the statistics and one for the result.

PyTorch's kernel has one block a group, which leaves most of a chip idle where a group is a whole video; here the places
are split among many, and what they find is merged (Chan et al. 1979, "Updating formulae", equation 2.1). Statistics
are fp32 and never differences of large sums.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

# Channels and places of a tile; channels times the two bytes of fp16 make a whole memory line.
COLUMNS, ROWS = 64, 64
# Places that one program of the statistics reads at most.
SPAN = 2048


@triton.jit
def _statistics(
    x,
    means,
    squares,
    places,
    channels,
    splits,
    span,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Mean and sum of squared differences of each channel over a span of places; grid (item, split, channel block)."""
    item, split = tl.program_id(0).to(tl.int64), tl.program_id(1)
    column = tl.program_id(2) * COLUMNS + tl.arange(0, COLUMNS)
    first = split * span
    last = tl.minimum(first + span, places)
    count = 0.0
    mean = tl.zeros((COLUMNS,), tl.float32)
    square = tl.zeros((COLUMNS,), tl.float32)
    for start in range(first, last, ROWS):
        row = start + tl.arange(0, ROWS)
        there = (row < last)[:, None] & (column < channels)[None, :]
        values = tl.load(x + (item * places + row)[:, None] * channels + column[None, :], mask=there, other=0.0)
        values = values.to(tl.float32)
        rows = tl.minimum(last - start, ROWS).to(tl.float32)
        tile = tl.sum(values, 0) / rows
        apart = tl.where(there, values - tile[None, :], 0.0)
        total = count + rows
        shift = tile - mean
        mean += shift * (rows / total)
        square += tl.sum(apart * apart, 0) + shift * shift * (count * rows / total)
        count = total
    place = (item * splits + split) * channels + column
    tl.store(means + place, mean, mask=column < channels)
    tl.store(squares + place, square, mask=column < channels)


@triton.jit
def _merge(
    means,
    squares,
    weight,
    bias,
    scales,
    shifts,
    places,
    channels,
    splits,
    span,
    width,
    eps,
    SPLITS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """What each channel is multiplied with and what is added; grid (item, group)."""
    item, group = tl.program_id(0).to(tl.int64), tl.program_id(1)
    inside = tl.arange(0, WIDTH)
    column = group * width + inside
    total = 0.0
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
        apart = tl.where(there, tl.load(means + place, mask=there, other=0.0) - mean, 0.0)
        inner = tl.load(squares + place, mask=there, other=0.0)
        squared += tl.sum(inner / places + apart * apart * (rows / places)[:, None])
    scale = tl.load(weight + column, mask=inside < width, other=0.0).to(tl.float32) * tl.rsqrt(squared / width + eps)
    shift = tl.load(bias + column, mask=inside < width, other=0.0).to(tl.float32) - mean * scale
    tl.store(scales + item * channels + column, scale, mask=inside < width)
    tl.store(shifts + item * channels + column, shift, mask=inside < width)


@triton.jit
def _apply(
    x,
    out,
    scales,
    shifts,
    places,
    channels,
    SILU: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """The result; grid (place block, channel block, item)."""
    item = tl.program_id(2).to(tl.int64)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    there = (row < places)[:, None] & (column < channels)[None, :]
    scale = tl.load(scales + item * channels + column, mask=column < channels, other=0.0)
    shift = tl.load(shifts + item * channels + column, mask=column < channels, other=0.0)
    place = (item * places + row)[:, None] * channels + column[None, :]
    y = tl.load(x + place, mask=there, other=0.0).to(tl.float32) * scale[None, :] + shift[None, :]
    if SILU:
        y = y * tl.sigmoid(y)
    tl.store(out + place, y.to(out.dtype.element_ty), mask=there)


def group_norm(
    x: Tensor, weight: Tensor, bias: Tensor, *, groups: int, eps: float, per_frame: bool, silu: bool = False
) -> Tensor:
    """`tensors.ops.group_norm`, in three launches and beside the result almost no memory."""
    x = x.contiguous()
    channels = x.shape[-1]
    items = x.shape[0] * x.shape[1] if per_frame else x.shape[0]
    places = x.numel() // (items * channels)
    splits = triton.cdiv(places, SPAN)
    width, blocks = channels // groups, triton.cdiv(channels, COLUMNS)
    means, squares = x.new_empty((2, items, splits, channels), dtype=torch.float32)
    scales, shifts = x.new_empty((2, items, channels), dtype=torch.float32)
    out = torch.empty_like(x)
    with torch.cuda.device_of(x):
        _statistics[(items, splits, blocks)](
            x, means, squares, places, channels, splits, SPAN, ROWS=ROWS, COLUMNS=COLUMNS
        )
        _merge[(items, groups)](
            *(means, squares, weight, bias, scales, shifts),
            *(places, channels, splits, SPAN, width, eps),
            SPLITS=min(32, triton.next_power_of_2(splits)),
            WIDTH=triton.next_power_of_2(width),
        )
        _apply[(triton.cdiv(places, ROWS), blocks, items)](
            x, out, scales, shifts, places, channels, SILU=silu, ROWS=ROWS, COLUMNS=COLUMNS
        )
    return out
