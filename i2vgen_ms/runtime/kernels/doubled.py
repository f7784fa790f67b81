"""A 3x3 convolution of an activation at twice its size, without the larger activation and with 4/9 of the products.

Each place of the result sees two by two different places, each with the sum of the weights that fall on it. Which
weights these are depends on whether its row and its column are even or odd: four phases, four sets of weights, all of
them one convolution with 2x2 weights and four times the channels, whose results then only have to change places.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from einops import rearrange
from torch import Tensor

from i2vgen_ms.runtime.kernels.grids import cdiv

# Places and channels of a tile; channels times the two bytes of fp16 make a whole memory line.
ROWS, COLUMNS = 64, 64


@triton.jit(do_not_specialize=["outputs"])
def _fold(weight, out, outputs, inputs, COLUMNS: tl.constexpr):
    """From weights `o 3 3 i` to `(phase phase o) 2 2 i`; grid (output, block of inputs)."""
    output, column = tl.program_id(0).to(tl.int64), tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    there = column < inputs
    for phase in tl.static_range(16):
        vertical, horizontal, row, place = phase // 8, phase // 4 % 2, phase // 2 % 2, phase % 2
        total = tl.zeros((COLUMNS,), tl.float32)
        for tap in tl.static_range(9):
            # a tap's place in the small picture, counted from the first that this phase sees
            y, x = (vertical + tap // 3 + 1) // 2 - vertical, (horizontal + tap % 3 + 1) // 2 - horizontal
            if y == row and x == place:
                values = tl.load(weight + (output * 9 + tap) * inputs + column, mask=there, other=0.0)
                total += values.to(tl.float32)
        target = (((vertical * 2 + horizontal) * outputs + output) * 4 + row * 2 + place) * inputs + column
        tl.store(out + target, total.to(out.dtype.element_ty), mask=there)


@triton.jit(do_not_specialize=["height", "width", "blocks"])
def _interleave(
    x, bias, out, height, width, channels, blocks, BIAS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):
    """From `f h+1 w+1 (phase phase c)` to `f 2h 2w c`, and the bias; grid (row of the result, tile of it)."""
    line = tl.program_id(0)
    frame, y = (line // (2 * height)).to(tl.int64), line % (2 * height)
    place = (tl.program_id(1) // blocks) * ROWS + tl.arange(0, ROWS)
    column = (tl.program_id(1) % blocks) * COLUMNS + tl.arange(0, COLUMNS)
    there = (place < 2 * width)[:, None] & (column < channels)[None, :]
    window = (frame * (height + 1) + (y + 1) // 2) * (width + 1) + (place + 1) // 2
    phase = y % 2 * 2 + place % 2
    values = tl.load(x + (window * 4 + phase)[:, None] * channels + column[None, :], mask=there, other=0.0).to(
        tl.float32
    )
    if BIAS:
        values += tl.load(bias + column, mask=column < channels, other=0.0).to(tl.float32)[None, :]
    target = (line.to(tl.int64) * 2 * width + place)[:, None] * channels + column[None, :]
    tl.store(out + target, values.to(out.dtype.element_ty), mask=there)


def conv_doubled(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`tensors.ops.conv_doubled` for weights `o i 3 3`."""
    phases = F.conv2d(rearrange(x, "b f h w c -> (b f) c h w"), fold(weight), padding=1)
    return rearrange(interleave(phases, bias), "(b f) h w c -> b f h w c", b=len(x))


def fold(weight: Tensor) -> Tensor:
    """The weights `(phase phase o) i 2 2` of the four phases of `o i 3 3`, in channels_last memory."""
    outputs, inputs = weight.shape[:2]
    weight = rearrange(weight, "o i y x -> o y x i").contiguous()
    out = weight.new_empty(4 * outputs, 2, 2, inputs)
    with torch.cuda.device_of(weight):
        _fold[(outputs, cdiv(inputs, COLUMNS))](weight, out, outputs, inputs, COLUMNS=COLUMNS)
    return rearrange(out, "o y x i -> o i y x")


def interleave(phases: Tensor, bias: Tensor | None) -> Tensor:
    """What the convolution gives, `f (phase phase c) h+1 w+1`, as `f 2h 2w c`, with the bias `c`."""
    x = rearrange(phases, "f c h w -> f h w c").contiguous()
    frames, h, w, c = x.shape[0], x.shape[1] - 1, x.shape[2] - 1, x.shape[3] // 4
    out = x.new_empty(frames, 2 * h, 2 * w, c)
    blocks = cdiv(c, COLUMNS)
    with torch.cuda.device_of(x):
        _interleave[(frames * 2 * h, cdiv(2 * w, ROWS) * blocks)](
            *(x, x if bias is None else bias, out, h, w, c, blocks), BIAS=bias is not None, ROWS=ROWS, COLUMNS=COLUMNS
        )
    return out
