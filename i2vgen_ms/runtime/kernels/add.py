"""Sums of activations and a bias in one pass, read and written where they are."""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from i2vgen_ms.runtime.kernels.grids import cdiv

# Places and channels of a tile.
ROWS, COLUMNS = 32, 128


@triton.jit(do_not_specialize=["rows", "blocks"])
def _add(
    x,
    y,
    bias,
    out,
    rows,
    channels,
    slab_stride,
    blocks,
    X: tl.constexpr,
    BIAS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """out = x + y + bias, where `out` lies in slabs of `rows` rows; grid (tile, slab)."""
    tile, slab = tl.program_id(0), tl.program_id(1).to(tl.int64)
    row = (tile // blocks).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = (tile % blocks) * COLUMNS + tl.arange(0, COLUMNS)
    there = (row < rows)[:, None] & (column < channels)[None, :]
    inner = row[:, None] * channels + column[None, :]
    place = slab * rows * channels + inner
    total = tl.load(y + place, mask=there, other=0.0).to(tl.float32)
    if BIAS:
        total += tl.load(bias + column, mask=column < channels, other=0.0).to(tl.float32)[None, :]
    if X:
        total += tl.load(x + place, mask=there, other=0.0).to(tl.float32)
    tl.store(out + slab * slab_stride + inner, total.to(out.dtype.element_ty), mask=there)


def add(x: Tensor, y: Tensor, bias: Tensor | None = None, *, out: Tensor | None = None) -> Tensor:
    """`tensors.ops.add`; `out` may be a part of a tensor along one of its axes."""
    x, y = x.contiguous(), y.contiguous()
    out = torch.empty_like(y) if out is None else out
    _launch(x, y, bias, out)
    return out


def add_bias_(y: Tensor, bias: Tensor) -> Tensor:
    """`y + bias` in the place of y."""
    y = y.contiguous()
    _launch(None, y, bias, y)
    return y


def slabs(x: Tensor) -> Tensor:
    """`x: ... c` as slabs of rows, `slabs rows c`, each row beside the next; nothing is copied unless it has to be."""
    if x.is_contiguous():
        return x.view(1, -1, x.shape[-1])
    for axis in range(1, x.ndim - 1):
        if x[(0,) * axis].is_contiguous():
            return x.reshape(-1, math.prod(x.shape[axis:-1]), x.shape[-1])
    return x.contiguous().view(1, -1, x.shape[-1])


def own_slabs(x: Tensor, name: str) -> Tensor:
    """`slabs` to write to. Raises: ValueError, which calls x by its name, where they would be a copy."""
    found = slabs(x)
    if found.data_ptr() != x.data_ptr():
        raise ValueError(f"{name} has no rows side by side: shape {tuple(x.shape)}, strides {x.stride()}")
    return found


def _launch(x: Tensor | None, y: Tensor, bias: Tensor | None, out: Tensor) -> None:
    target = own_slabs(out, "out")
    count, rows, channels = target.shape
    blocks = cdiv(channels, COLUMNS)
    with torch.cuda.device_of(y):
        _add[(cdiv(rows, ROWS) * blocks, count)](
            *(y if x is None else x, y, y if bias is None else bias, target),
            *(rows, channels, target.stride(0), blocks),
            X=x is not None,
            BIAS=bias is not None,
            ROWS=ROWS,
            COLUMNS=COLUMNS,
        )
