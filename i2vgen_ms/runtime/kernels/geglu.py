"""The gated feed-forward layer: a value times the GELU of its gate, in one pass after the product or as its end.

The fused product has a value and its gate in the same tile, so that what is written is the gated half alone; else a
product of twice that width would be written and read again.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from i2vgen_ms.runtime.device import has_copy_engine
from i2vgen_ms.runtime.kernels.add import slabs
from i2vgen_ms.runtime.kernels.grids import cdiv
from i2vgen_ms.runtime.kernels.layer_norm import add_layer_norm

Gate = Callable[[Tensor, Tensor, Tensor], Tensor]

# Tokens and channels of a tile of the gate alone.
ROWS, COLUMNS = 32, 128
# The fused product's tile, by the most channels that are summed: tokens, channels of the value (and as many of the
# gate), summed channels a step. For few of them so small that three are on a multiprocessor, of which one computes its
# gates while another multiplies; for more of them so large that tokens and weights are read less often.
TILES: dict[int, dict[str, int]] = {
    320: {"M": 128, "N": 64, "K": 64, "num_warps": 4, "num_stages": 2},
    640: {"M": 256, "N": 64, "K": 64, "num_warps": 8, "num_stages": 3},
}
# Wider inputs than this gain less from the fusion than cuBLAS's product is faster.
WIDEST = max(TILES)


@triton.jit
def _gelu(x):
    """The exact GELU (Hendrycks and Gimpel 2016), to 5e-8: x times the share of a normal distribution below x.

    The share beyond z > 0 is a polynomial to the power of -16, as Abramowitz and Stegun 1964, 7.1.28, have it, here
    fitted for the least error of z times it and exact at 0. That is half as many instructions as with an exponential
    and a division.
    """
    z = tl.minimum(tl.abs(x), 12.0)  # beyond there is nothing left of it, and the power would overflow
    p = -5.37558453e-06 + z * (7.80960291e-05 + z * (-2.16497123e-06 + z * 8.5302042e-07))
    p = 1.04427378 + z * (0.0520769902 + z * (0.0220629108 + z * (0.00345999231 + z * p)))
    p *= p
    p *= p
    p *= p
    p *= p
    root = tl.rsqrt(p)
    return 0.5 * x + tl.abs(x) * (0.5 - root * root)


@triton.jit(do_not_specialize=["rows", "blocks"])
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
def _product(tokens, weights, bias, result, width, summed, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr):
    """result = (tokens value) * gelu(tokens gate), both plus their biases; grid (tile), a row of tiles together.

    Descriptors of tokens `rows summed`, weights `2 width summed`, value before gate, and result `rows width`.
    """
    blocks = tl.cdiv(width, N)
    row, first = (tl.program_id(0) // blocks) * M, (tl.program_id(0) % blocks) * N
    both = tl.zeros((M, 2 * N), tl.float32)
    for step in range(0, summed, K):
        # One product of twice the width, for which the tokens are read once.
        weight = weights.load([0, first, step]).reshape(2 * N, K)
        both = tl.dot(tokens.load([row, step]), weight.T, both, input_precision="ieee")
    value, gate = both.reshape(M, 2, N).permute(0, 2, 1).split()
    column = first + tl.arange(0, N)
    value += tl.load(bias + column, mask=column < width, other=0.0).to(tl.float32)[None, :]
    gate += tl.load(bias + width + column, mask=column < width, other=0.0).to(tl.float32)[None, :]
    result.store([row, first], (value * _gelu(gate)).to(bias.dtype.element_ty))


def geglu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`tensors.ops.geglu`, the gate fused with the product before it or in one pass of its own."""
    return product(x, weight, bias) if fits(x, weight) else gated(F.linear(x, weight, bias))


def feed_forward(
    x: Tensor, weight_in: Tensor, bias_in: Tensor, weight_out: Tensor, bias_out: Tensor, *, gate: Gate = geglu
) -> Tensor:
    """`tensors.ops.feed_forward`, its first layer by `gate`, which is `tensors.ops.geglu`."""
    return F.linear(gate(x, weight_in, bias_in), weight_out, bias_out)


def feed_forward_onto(
    x: Tensor,
    y: Tensor,
    norm: tuple[Tensor, Tensor],
    layers: tuple[Tensor, Tensor, Tensor, Tensor],
    *,
    shift: Tensor | None = None,
    out: Tensor | None = None,
    gate: Gate = geglu,
) -> Tensor:
    """`tensors.ops.Ops.feed_forward_of_sum`, the second layer's product added to the sum where that lies.

    The first layer is made by `gate`, which is `tensors.ops.geglu`. The sum has the second one's bias already, as no
    product adds both. `out` may be a part of a tensor along an axis.
    """
    weight_in, bias_in, weight_out, bias_out = layers
    total, normal = add_layer_norm(x, y, *norm, shift=shift, after=bias_out, total=out)
    target = slabs(total)
    hidden = gate(normal, weight_in, bias_in).view(len(target), -1, len(weight_in) // 2)
    if len(target) == 1:
        target[0].addmm_(hidden[0], weight_out.T)
    else:
        target.baddbmm_(hidden, weight_out.T.expand(len(target), -1, -1))
    return total


def product(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`tensors.ops.geglu` in one launch, of what `fits`."""
    tokens, width = x.reshape(-1, x.shape[-1]), len(weight) // 2
    out = x.new_empty((*x.shape[:-1], width))
    tile = next(tile for summed, tile in TILES.items() if x.shape[-1] <= summed)
    m, n, k = tile["M"], tile["N"], tile["K"]
    with torch.cuda.device_of(x):
        _product[(cdiv(len(tokens), m) * cdiv(width, n),)](
            TensorDescriptor.from_tensor(tokens, [m, k]),
            TensorDescriptor.from_tensor(weight.view(2, width, -1), [2, n, k]),
            bias,
            TensorDescriptor.from_tensor(out.view(-1, width), [m, n]),
            *(width, x.shape[-1]),
            **tile,
        )
    return out


def fits(x: Tensor, weight: Tensor) -> bool:
    """Whether `product` can do it, and faster than two launches: fp16 or bf16 that the copy engine can address.

    Its rows begin at multiples of 16 bytes. Devices before Hopper have none.
    """
    half = x.dtype in (torch.float16, torch.bfloat16)
    aligned = x.is_contiguous() and weight.is_contiguous() and x.shape[-1] % 8 == 0 and len(weight) % 16 == 0
    aligned = aligned and x.data_ptr() % 16 == 0 and weight.data_ptr() % 16 == 0
    modern = x.device.type != "cuda" or has_copy_engine(x.device)
    return half and aligned and modern and x.shape[-1] <= WIDEST


def gated(x: Tensor) -> Tensor:
    """`value * gelu(gate)` for the two halves of the last axis of `x: ... 2h`, value first; `... h`."""
    x = x.contiguous()
    width = x.shape[-1] // 2
    rows, blocks = x.numel() // (2 * width), cdiv(width, COLUMNS)
    out = x.new_empty((*x.shape[:-1], width))
    with torch.cuda.device_of(x):
        _gated[(cdiv(rows, ROWS) * blocks,)](x, out, rows, width, blocks, ROWS=ROWS, COLUMNS=COLUMNS)
    return out
