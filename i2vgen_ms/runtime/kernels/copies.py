"""Copies of activations that are read once and written once: two side by side, and one at twice the size.

PyTorch's kernels for these have no fast way for five axes or for a copy that repeats.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from i2vgen_ms.runtime.kernels.grids import cdiv

# Places and channels of a tile; channels times the two bytes of fp16 make a whole memory line.
ROWS, COLUMNS = 64, 64


@triton.jit(do_not_specialize=["rows", "y_rows", "blocks"])
def _join(x, y, out, rows, y_rows, x_channels, y_channels, blocks, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Rows of x with rows of y behind them, of which there may be fewer and which then repeat; grid (tile)."""
    row = (tl.program_id(0) // blocks) * ROWS + tl.arange(0, ROWS)
    column = (tl.program_id(0) % blocks) * COLUMNS + tl.arange(0, COLUMNS)
    channels = x_channels + y_channels
    there = (row < rows)[:, None] & (column < channels)[None, :]
    first = (column < x_channels)[None, :]
    other = (row % y_rows).to(tl.int64)
    row = row.to(tl.int64)
    left = tl.load(x + row[:, None] * x_channels + column[None, :], mask=there & first, other=0.0)
    right = tl.load(y + other[:, None] * y_channels + (column - x_channels)[None, :], mask=there & ~first, other=0.0)
    tl.store(out + row[:, None] * channels + column[None, :], tl.where(first, left, right), mask=there)


@triton.jit(do_not_specialize=["height", "width", "crop", "blocks"])
def _double(x, out, height, width, channels, crop, blocks, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Each place four times, without `crop` rows above and below; grid (row of the result, tile of it)."""
    line = tl.program_id(0)
    lines = 2 * (height - crop)
    frame, y = (line // lines).to(tl.int64), (line % lines + crop) // 2
    place = (tl.program_id(1) // blocks) * ROWS + tl.arange(0, ROWS)
    column = (tl.program_id(1) % blocks) * COLUMNS + tl.arange(0, COLUMNS)
    there = (place < 2 * width)[:, None] & (column < channels)[None, :]
    source = ((frame * height + y) * width + place // 2)[:, None] * channels + column[None, :]
    target = (line.to(tl.int64) * 2 * width + place)[:, None] * channels + column[None, :]
    tl.store(out + target, tl.load(x + source, mask=there, other=0.0), mask=there)


def join(x: Tensor, y: Tensor) -> Tensor:
    """`tensors.ops.join`."""
    x, y = x.contiguous(), y.contiguous()
    out = x.new_empty((*x.shape[:-1], x.shape[-1] + y.shape[-1]))
    rows, blocks = x.numel() // x.shape[-1], cdiv(out.shape[-1], COLUMNS)
    with torch.cuda.device_of(x):
        _join[(cdiv(rows, ROWS) * blocks,)](
            *(x, y, out, rows, y.numel() // y.shape[-1], x.shape[-1], y.shape[-1], blocks), ROWS=ROWS, COLUMNS=COLUMNS
        )
    return out


def double(x: Tensor, *, crop: int = 0) -> Tensor:
    """`tensors.ops.double`."""
    x = x.contiguous()
    b, f, h, w, c = x.shape
    out = x.new_empty((b, f, 2 * (h - crop), 2 * w, c))
    blocks = cdiv(c, COLUMNS)
    with torch.cuda.device_of(x):
        _double[(b * f * out.shape[2], cdiv(2 * w, ROWS) * blocks)](
            x, out, h, w, c, crop, blocks, ROWS=ROWS, COLUMNS=COLUMNS
        )
    return out
