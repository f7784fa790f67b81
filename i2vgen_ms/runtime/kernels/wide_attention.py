"""Attention of heads that are too wide for the usual kernels, which hold a head's outcome in registers.

The scores of some queries are written out, in fp32, and read again: for a width of 512 that is three times as fast as
the one general kernel that PyTorch has for it.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from einops import rearrange
from torch import Tensor

from i2vgen_ms.runtime.kernels.grids import power_of_2

# Above this width there are no other kernels but the general one.
WIDTH = 256
# Keys of which one program holds a query's scores.
MOST_KEYS = 65536
# Bytes of the scores that there are at once.
LIMIT = 256 * 2**20


@triton.jit
def _weigh(scores, shares, sums, keys, scale, KEYS: tl.constexpr):
    """A query's scores as shares of the largest weight, and their sum; grid (query)."""
    query = tl.program_id(0).to(tl.int64)
    key = tl.arange(0, KEYS)
    values = tl.load(scores + query * keys + key, mask=key < keys, other=float("-inf")) * scale
    values = tl.exp(values - tl.max(values, 0))
    tl.store(sums + query, tl.sum(values, 0))
    tl.store(shares + query * keys + key, values.to(shares.dtype.element_ty), mask=key < keys)


def takes(q: Tensor, k: Tensor) -> bool:
    """Whether this is the faster way, and can be gone: q `b n heads d`, k `b m heads d`."""
    there = "dtype" in torch.ops.aten.bmm.overloads()  # products of half precision that are given in single
    return there and q.shape[-1] > WIDTH and k.shape[1] <= MOST_KEYS and q.dtype in (torch.float16, torch.bfloat16)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """`softmax(q k^T / sqrt(d)) v` for tensors that it `takes`; the result is `b n heads d`."""
    batch, keys, width = q.shape[0], k.shape[1], q.shape[-1]
    q, k, v = (rearrange(one, "b n heads d -> (b heads) n d") for one in (q, k, v))
    out = torch.empty_like(q, memory_format=torch.contiguous_format)
    parts = -(-q.shape[1] * keys * 4 // LIMIT)
    for item, answer, key, value in zip(q, out, k, v, strict=True):
        for queries, answers in zip(item.tensor_split(parts), answer.tensor_split(parts), strict=True):
            scores = _product(queries, key.T)
            weights, sums = torch.empty_like(scores, dtype=value.dtype), scores.new_empty(len(scores), 1)
            with torch.cuda.device_of(scores):
                _weigh[(len(scores),)](
                    scores,
                    weights,
                    sums,
                    keys,
                    width**-0.5,
                    KEYS=power_of_2(keys),
                    num_warps=min(16, max(1, power_of_2(keys) // 512)),
                )
            del scores
            torch.div(_product(weights, value), sums, out=answers)
    return rearrange(out, "(b heads) n d -> b n heads d", b=batch)


def _product(x: Tensor, y: Tensor) -> Tensor:
    """In fp32, as it is summed."""
    if not x.is_cuda:
        return x.float() @ y.float()
    product: Tensor = torch.bmm(x[None], y[None], out_dtype=torch.float32)[0]
    return product
