"""Attention of many tokens to a few, as to those of a text: a program keeps all keys and values of a head.

General kernels are made for long sequences: their tiles of 128 keys are half empty, and a program has one tile of
queries, for which it waits as long as it computes. Here one goes through several, and asks for the next meanwhile.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from i2vgen_ms.runtime.kernels.grids import cdiv, power_of_2

# Keys and channels of a head for which there is room on every device, and items that a grid can have.
MOST_KEYS, MOST_WIDTH, MOST_ITEMS = 128, 64, 65535
# Of more keys than FEW this pays for many queries alone: on an H200 960 look at 77 keys in 60 us, and in cuDNN's 50.
FEW, MANY = 16, 2048
# Queries of a tile, and tiles of a program.
ROWS, TILES = 64, 8
_LOG2_E = 1.4426950408889634


@triton.jit
def _looked_up(x, item, token, head, tokens, width, FIRST: tl.constexpr, COUNT: tl.constexpr, WIDTH: tl.constexpr):
    """Some tokens of one item and head, zeros beyond the last."""
    row, column = FIRST + tl.arange(0, COUNT), tl.arange(0, WIDTH)
    place = item + head + row[:, None] * token + column[None, :]
    return tl.load(x + place, mask=(row < tokens)[:, None] & (column < width)[None, :], other=0.0)


@triton.jit
def _scores(asked, known, keys, scale, FIRST: tl.constexpr, COUNT: tl.constexpr):
    column = FIRST + tl.arange(0, COUNT)
    scores = tl.dot(asked, tl.trans(known), input_precision="ieee") * scale
    return tl.where((column < keys)[None, :], scores, float("-inf"))


@triton.jit(do_not_specialize=["queries", "keys"])
def _attend(
    q,
    k,
    v,
    out,
    q_item,
    q_token,
    q_head,
    k_item,
    k_token,
    k_head,
    v_item,
    v_token,
    v_head,
    queries,
    keys,
    width,
    scale,
    FIRST: tl.constexpr,
    REST: tl.constexpr,
    ROWS: tl.constexpr,
    TILES: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """softmax(q k^T scale) v, `scale` to the base of 2; keys are the first and the rest; grid (tiles, head, item)."""
    head, heads, item = tl.program_id(1), tl.num_programs(1), tl.program_id(2).to(tl.int64)
    known = _looked_up(k, item * k_item, k_token, head * k_head, keys, width, 0, FIRST, WIDTH)
    values = _looked_up(v, item * v_item, v_token, head * v_head, keys, width, 0, FIRST, WIDTH)
    if REST:
        more_known = _looked_up(k, item * k_item, k_token, head * k_head, keys, width, FIRST, REST, WIDTH)
        more_values = _looked_up(v, item * v_item, v_token, head * v_head, keys, width, FIRST, REST, WIDTH)
    column = tl.arange(0, WIDTH)
    first = tl.program_id(0) * (ROWS * TILES)
    for start in range(first, tl.minimum(first + ROWS * TILES, queries), ROWS):
        row = start + tl.arange(0, ROWS)
        there = (row < queries)[:, None] & (column < width)[None, :]
        row = row.to(tl.int64)[:, None]
        asked = tl.load(q + item * q_item + head * q_head + row * q_token + column[None, :], mask=there, other=0.0)
        scores = _scores(asked, known, keys, scale, 0, FIRST)
        top = tl.max(scores, 1)
        if REST:
            more = _scores(asked, more_known, keys, scale, FIRST, REST)
            top = tl.maximum(top, tl.max(more, 1))
        weights = tl.exp2(scores - top[:, None])
        total = tl.sum(weights, 1)
        mixed = tl.dot(weights.to(values.dtype), values, input_precision="ieee")
        if REST:
            weights = tl.exp2(more - top[:, None])
            total += tl.sum(weights, 1)
            mixed = tl.dot(weights.to(values.dtype), more_values, mixed, input_precision="ieee")
        place = ((item * queries + row) * heads + head) * width + column[None, :]
        tl.store(out + place, (mixed / total[:, None]).to(out.dtype.element_ty), mask=there)


def takes(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether the kernel can do it, and faster than general ones: q `b n heads d`, k and v `b m heads d`."""
    half = q.dtype == k.dtype == v.dtype and q.dtype in (torch.float16, torch.bfloat16)
    small = 0 < k.shape[1] <= MOST_KEYS and k.shape == v.shape and q.shape[3] <= MOST_WIDTH
    small = small and q.shape[0] <= MOST_ITEMS
    pays = k.shape[1] <= FEW or q.shape[1] >= MANY
    return half and small and pays and all(one.stride(3) == 1 for one in (q, k, v))


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """`softmax(q k^T / sqrt(d)) v` for tensors that it `takes`; the result is `b n heads d`."""
    items, queries, heads, width = q.shape
    out, keys = q.new_empty(q.shape), k.shape[1]
    first = max(16, power_of_2(keys + 1) // 2)
    rest = max(16, power_of_2(keys - first)) if keys > first else 0
    strides = [stride for one in (q, k, v) for stride in one.stride()[:3]]
    with torch.cuda.device_of(q):
        _attend[(cdiv(queries, ROWS * TILES), heads, items)](
            *(q, k, v, out, *strides, queries, keys, width, width**-0.5 * _LOG2_E),
            FIRST=first,
            REST=rest,
            ROWS=ROWS,
            TILES=TILES,
            WIDTH=max(16, power_of_2(width)),
            num_warps=4,
        )
    return out
