"""Attention over the frames of every place, read where the values are: many thousands of small problems in one launch.

General kernels are made for long sequences: of their tiles of 64 or 128 tokens, 32 frames fill a part. Here a program
has one place and one head, all frames of it in registers, and every value is read once and written once.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from i2vgen_ms.runtime.kernels.grids import power_of_2

# More frames than this do not fit into registers; a program then has too little beside it to hide its waiting.
MOST_FRAMES, MOST_WIDTH = 128, 128


@triton.jit(do_not_specialize=["places", "heads", "frames"])
def _attend(
    q,
    k,
    v,
    out,
    q_video,
    q_frame,
    q_place,
    q_head,
    k_video,
    k_frame,
    k_place,
    k_head,
    v_video,
    v_frame,
    v_place,
    v_head,
    places,
    heads,
    frames,
    width,
    scale,
    FRAMES: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """softmax(q k^T scale) v for one head of one place; grid (place and head, video)."""
    # Heads that lie side by side in memory are asked for side by side.
    place, head, video = (
        (tl.program_id(0) // heads).to(tl.int64),
        tl.program_id(0) % heads,
        tl.program_id(1).to(tl.int64),
    )
    frame, column = tl.arange(0, FRAMES).to(tl.int64), tl.arange(0, WIDTH)
    there = (frame < frames)[:, None] & (column < width)[None, :]
    q += video * q_video + place * q_place + head * q_head
    k += video * k_video + place * k_place + head * k_head
    v += video * v_video + place * v_place + head * v_head
    asked = tl.load(q + frame[:, None] * q_frame + column[None, :], mask=there, other=0.0)
    known = tl.load(k + frame[:, None] * k_frame + column[None, :], mask=there, other=0.0)
    # fp32 inputs are multiplied as fp32: TF32 would cost the last ten bits.
    scores = tl.dot(asked, tl.trans(known), input_precision="ieee") * scale
    scores = tl.where((frame < frames)[None, :], scores, float("-inf"))
    weights = tl.exp(scores - tl.max(scores, 1)[:, None])
    total = tl.sum(weights, 1)
    values = tl.load(v + frame[:, None] * v_frame + column[None, :], mask=there, other=0.0)
    mixed = tl.dot(weights.to(values.dtype), values, input_precision="ieee") / total[:, None]
    row = ((video * frames + frame) * places + place) * heads + head
    tl.store(out + row[:, None] * width + column[None, :], mixed.to(out.dtype.element_ty), mask=there)


def takes(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether the kernel can do it: as many keys as queries, few and narrow enough, each head's values side by side."""
    same = q.shape == k.shape == v.shape and q.dtype == k.dtype == v.dtype
    return same and q.shape[1] <= MOST_FRAMES and q.shape[4] <= MOST_WIDTH and all(t.stride(4) == 1 for t in (q, k, v))


def over_frames(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """`tensors.attention.over_frames` for q, k, v `b f n heads d` that `takes` them, of any strides."""
    videos, frames, places, heads, width = q.shape
    out = q.new_empty(q.shape)
    strides = [stride for t in (q, k, v) for stride in t.stride()[:4]]
    with torch.cuda.device_of(q):
        _attend[(places * heads, videos)](
            *(q, k, v, out, *strides, places, heads, frames, width, width**-0.5),
            FRAMES=max(16, power_of_2(frames)),
            WIDTH=max(16, power_of_2(width)),
            num_warps=1 if frames <= 32 and width <= 64 else 4,
        )
    return out
