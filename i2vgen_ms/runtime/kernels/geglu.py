"""The gated feed-forward layer: a value times the GELU of its gate, in one pass after the product or as its end.

The fused product has two accumulators, so that what is written is the gated half alone; in between, a product of twice
that width would be written and read again.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

# Tokens and channels of a tile of the gate alone.
ROWS, COLUMNS = 32, 128
# The fused product's tile: tokens, channels of the value (and as many of the gate), summed channels a step.
TILE: dict[str, int] = {"M": 128, "N": 128, "K": 64, "num_warps": 8, "num_stages": 3}
# Wider inputs than this gain less from the fusion than cuBLAS's product is faster.
WIDEST = 640


@triton.jit
def _gelu(x):
    """The exact GELU (Hendrycks and Gimpel 2016), its error function by Abramowitz and Stegun 1964, 7.1.26 (1.5e-7)."""
    z = tl.abs(x) * 0.7071067811865476
    t = 1.0 / (1.0 + 0.3275911 * z)
    p = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    below = 0.5 * p * tl.exp(-z * z)
    return x * tl.where(x < 0, below, 1.0 - below)


@triton.jit
def _gated(x, out, rows, width, blocks, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Grid (tile)."""
    tile = tl.program_id(0)
    row = (tile // blocks).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = (tile % blocks) * COLUMNS + tl.arange(0, COLUMNS)
    there = (row < rows)[:, None] & (column < width)[None, :]
    place = row[:, None] * width + column[None, :]
    source = x + row[:, None] * width * 2 + column[None, :]
    value = tl.load(source, mask=there, other=0.0).to(tl.float32)
    gate = tl.load(source + width, mask=there, other=0.0).to(tl.float32)
    tl.store(out + place, (value * _gelu(gate)).to(out.dtype.element_ty), mask=there)


@triton.jit
def _product(
    x,
    weight,
    bias,
    out,
    rows,
    width,
    summed,
    x_stride,
    M: tl.constexpr,
    N: tl.constexpr,
    K: tl.constexpr,
):
    """out = (x value) * gelu(x gate), both plus their biases; grid (tile), those of one block of rows together."""
    blocks = tl.cdiv(width, N)
    row = (tl.program_id(0) // blocks).to(tl.int64) * M + tl.arange(0, M)
    column = (tl.program_id(0) % blocks) * N + tl.arange(0, N)
    step = tl.arange(0, K)
    # Rows and columns beyond the end are others again, and are not stored.
    a = x + (row % rows)[:, None] * x_stride + step[None, :]
    b = weight + (column % width)[None, :] * summed + step[:, None]
    value = tl.zeros((M, N), tl.float32)
    gate = tl.zeros((M, N), tl.float32)
    for first in range(0, summed, K):
        inside = step < summed - first
        left = tl.load(a, mask=inside[None, :], other=0.0)
        value = tl.dot(left, tl.load(b, mask=inside[:, None], other=0.0), value)
        gate = tl.dot(left, tl.load(b + width * summed, mask=inside[:, None], other=0.0), gate)
        a += K
        b += K
    value += tl.load(bias + column, mask=column < width, other=0.0).to(tl.float32)[None, :]
    gate += tl.load(bias + width + column, mask=column < width, other=0.0).to(tl.float32)[None, :]
    there = (row < rows)[:, None] & (column < width)[None, :]
    place = row[:, None] * width + column[None, :]
    tl.store(out + place, (value * _gelu(gate)).to(out.dtype.element_ty), mask=there)


def feed_forward(x: Tensor, weight_in: Tensor, bias_in: Tensor, weight_out: Tensor, bias_out: Tensor) -> Tensor:
    """`tensors.ops.feed_forward`, the gate fused with the product before it or in one pass of its own."""
    half = x.dtype in (torch.float16, torch.bfloat16) and x.shape[-1] <= WIDEST
    hidden = product(x, weight_in, bias_in) if half else gated(F.linear(x, weight_in, bias_in))
    return F.linear(hidden, weight_out, bias_out)


def product(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`tensors.ops.geglu` in one launch, for types whose products are summed in fp32 anyway."""
    weight, tokens = weight.contiguous(), x.reshape(-1, x.shape[-1])
    tokens = tokens if tokens.stride(1) == 1 else tokens.contiguous()
    width, summed = len(weight) // 2, x.shape[-1]
    out = x.new_empty((*x.shape[:-1], width))
    with torch.cuda.device_of(x):
        _product[(triton.cdiv(len(tokens), TILE["M"]) * triton.cdiv(width, TILE["N"]),)](
            tokens, weight, bias, out, len(tokens), width, summed, tokens.stride(0), **TILE
        )
    return out


def gated(x: Tensor) -> Tensor:
    """`value * gelu(gate)` for the two halves of the last axis of `x: ... 2h`, value first; `... h`."""
    x = x.contiguous()
    width = x.shape[-1] // 2
    rows, blocks = x.numel() // (2 * width), triton.cdiv(width, COLUMNS)
    out = x.new_empty((*x.shape[:-1], width))
    with torch.cuda.device_of(x):
        _gated[(triton.cdiv(rows, ROWS) * blocks,)](x, out, rows, width, blocks, ROWS=ROWS, COLUMNS=COLUMNS)
    return out
