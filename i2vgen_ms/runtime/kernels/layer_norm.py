"""Layer normalisation, and a sum with its layer normalisation: each row is read once and kept in registers.

PyTorch's kernel has a block of threads a row, most of which a narrow row leaves idle; here a program has a few rows.
Statistics are fp32, and the differences from the mean are taken before they are squared.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from i2vgen_ms.runtime.kernels.add import own_slabs, slabs
from i2vgen_ms.runtime.kernels.grids import cdiv, power_of_2

# Values of a program's rows.
VALUES = 2048


@triton.jit(do_not_specialize=["rows"])
def _normalise(
    x,
    y,
    weight,
    bias,
    shift,
    after,
    total,
    out,
    rows,
    width,
    slab_stride,
    total_stride,
    eps,
    Y: tl.constexpr,
    SHIFT: tl.constexpr,
    AFTER: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """total = x + y + shift + after, of which all but x may be missing, and out the normalisation without `after`.

    Grid (rows, slab); x and total lie in slabs of `rows` rows.
    """
    slab = tl.program_id(1).to(tl.int64)
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, WIDTH)
    inside = column < width
    there = (row < rows)[:, None] & inside[None, :]
    inner = row[:, None] * width + column[None, :]
    place = slab * rows * width + inner
    values = tl.load(x + slab * slab_stride + inner, mask=there, other=0.0).to(tl.float32)
    if Y:
        values += tl.load(y + place, mask=there, other=0.0).to(tl.float32)
    if SHIFT:
        values += tl.load(shift + column, mask=inside, other=0.0).to(tl.float32)[None, :]
    if Y or SHIFT:
        kept = values
        if AFTER:
            kept += tl.load(after + column, mask=inside, other=0.0).to(tl.float32)[None, :]
        tl.store(total + slab * total_stride + inner, kept.to(total.dtype.element_ty), mask=there)
        # What is normalised is what the sum is kept as.
        values = values.to(total.dtype.element_ty).to(tl.float32)
    mean = tl.sum(values, 1) / width
    apart = tl.where(there, values - mean[:, None], 0.0)
    scale = tl.rsqrt(tl.sum(apart * apart, 1) / width + eps)
    scaled = apart * scale[:, None] * tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)[None, :]
    scaled += tl.load(bias + column, mask=inside, other=0.0).to(tl.float32)[None, :]
    tl.store(out + place, scaled.to(out.dtype.element_ty), mask=there)


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, *, eps: float = 1e-5) -> Tensor:
    """`tensors.ops.layer_norm`; x may be a part of a tensor along one of its axes."""
    out = x.new_empty(x.shape)
    _launch(x, None, weight, bias, None, None, None, out, eps)
    return out


def shift_layer_norm(
    x: Tensor, shift: Tensor, weight: Tensor, bias: Tensor, *, eps: float = 1e-5
) -> tuple[Tensor, Tensor]:
    """`tensors.ops.shift_layer_norm`, in the place of x, which may be a part of a tensor along one of its axes."""
    out = x.new_empty(x.shape)
    _launch(x, None, weight, bias, shift, None, x, out, eps)
    return x, out


def add_layer_norm(
    x: Tensor,
    y: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    eps: float = 1e-5,
    shift: Tensor | None = None,
    after: Tensor | None = None,
    total: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`tensors.ops.add_layer_norm`; x may be a part of a tensor along one of its axes.

    after: `c`, what is added to the sum beside, after it is normalised. total: where to put the sum, which may be a
    part of a tensor too.
    """
    total, out = x.new_empty(x.shape) if total is None else total, x.new_empty(x.shape)
    _launch(x, y.contiguous(), weight, bias, shift, after, total, out, eps)
    return total, out


def _launch(
    x: Tensor,
    y: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    shift: Tensor | None,
    after: Tensor | None,
    total: Tensor | None,
    out: Tensor,
    eps: float,
) -> None:
    source, target = slabs(x), own_slabs(out if total is None else total, "total")
    if len(target) == 1:  # contiguous
        target = target.view(source.shape)
    elif source.shape != target.shape:
        source = x.contiguous().view(target.shape)
    count, rows, width = source.shape
    block = power_of_2(width)
    some = max(1, VALUES // block)
    with torch.cuda.device_of(x):
        _normalise[(cdiv(rows, some), count)](
            *(source, source if y is None else y, weight, bias),
            *(bias if shift is None else shift, bias if after is None else after, target, out),
            *(rows, width, source.stride(0), target.stride(0), eps),
            Y=y is not None,
            SHIFT=shift is not None,
            AFTER=after is not None,
            ROWS=some,
            WIDTH=block,
        )
