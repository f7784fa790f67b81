"""Operations for CUDA devices that would need much memory for a moment, done in parts.

Each function is that of `tensors.ops` on slices that do not see each other. What it knows of memory is one limit.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from i2vgen_ms.tensors import ops

# Bytes of the largest intermediate result. Large enough that every part keeps the whole chip busy.
LIMIT = 256 * 2**20
# The same for a transformer block.
BLOCK_LIMIT = 2**30
# What a convolution block makes of its input or its output for a moment, in the larger one's size; up to which size all
# of it is made at once, as the parts would keep no chip busy; and the size of a part of more. At 1280x720 transformer
# blocks take as much, and cuDNN is a quarter slower with parts of three or five frames than with all 32 at once.
FRAME_ACTIVATIONS, WHOLE, FRAMES_LIMIT = 3, 2**30, 576 * 2**20


def group_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    groups: int,
    eps: float,
    per_frame: bool,
    silu: bool = False,
    shift: Tensor | None = None,
) -> Tensor:
    """`ops.group_norm`, some groups at a time, as they are independent, written to `b f h w c` at once."""
    count = max(1, min(groups, LIMIT // max(1, x.nbytes // groups)))
    if count >= groups:
        return ops.group_norm(x, weight, bias, groups=groups, eps=eps, per_frame=per_frame, silu=silu, shift=shift)
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    width = x.shape[-1] // groups
    for first in range(0, groups, count):
        last = min(groups, first + count)
        part = slice(first * width, last * width)
        out[..., part] = ops.group_norm(
            x[..., part],
            weight[part],
            bias[part],
            groups=last - first,
            eps=eps,
            per_frame=per_frame,
            silu=silu,
            shift=None if shift is None else shift[..., part],
        )
    return out


def conv_spatial(
    x: Tensor, weight: Tensor, bias: Tensor | None, *, stride: int = 1, padding: tuple[int, int] = (1, 1)
) -> Tensor:
    """`ops.conv_spatial`; a large one in fp32 some rows at a time, with the rows beside them that the kernel sees.

    For fp32 cuDNN copies what goes in and out into an order of its own, which doubles the memory.
    """
    rows, halo = x.shape[2], weight.shape[2] // 2
    count = max(1, LIMIT // max(1, x.nbytes // rows))
    if x.dtype != torch.float32 or stride != 1 or padding[0] != halo or count >= rows:
        return ops.conv_spatial(x, weight, bias, stride=stride, padding=padding)
    columns = x.shape[3] + 2 * padding[1] - weight.shape[3] + 1
    out = torch.empty((*x.shape[:3], columns, len(weight)), dtype=x.dtype, device=x.device)
    for first in range(0, rows, count):
        last, top = min(rows, first + count), max(0, first - halo)
        part = ops.conv_spatial(x[:, :, top : last + halo], weight, bias, padding=padding)
        out[:, :, first:last] = part[:, :, first - top : last - top]
    return out


def in_parts(function: Callable[..., Tensor], *inputs: Tensor, axis: int) -> Tensor:
    """`ops.in_parts`, some places along the axis at a time; the parts are about equally long."""
    size = inputs[0].shape[axis]
    most = max(1, BLOCK_LIMIT // (ops.BLOCK_ACTIVATIONS * max(1, inputs[0].nbytes // size)))
    if most >= size:
        return function(*inputs)
    out = torch.empty_like(inputs[0])
    parts = -(-size // most)
    for part in zip(*(one.tensor_split(parts, axis) for one in inputs), out.tensor_split(parts, axis), strict=True):
        function(*part[:-1], out=part[-1])
    return out


def by_frames(function: Callable[..., Tensor], parts: list[Tensor], shape: tuple[int, ...]) -> Tensor:
    """`ops.by_frames`, a few frames at a time where all of them would need much."""
    like, frames = parts[0], shape[1]
    made = FRAME_ACTIVATIONS * max(sum(one.nbytes for one in parts), math.prod(shape) * like.element_size())
    if made <= WHOLE:
        del like
        return function(parts)
    out, count = like.new_empty(shape), min(frames, -(-made // FRAMES_LIMIT))
    pieces = [one.tensor_split(count, 1) for one in parts]
    parts.clear()
    for *some, there in zip(*pieces, out.tensor_split(count, 1), strict=True):
        function(some, out=there)
    return out


def feed_forward(
    x: Tensor,
    weight_in: Tensor,
    bias_in: Tensor,
    weight_out: Tensor,
    bias_out: Tensor,
    *,
    layer: Callable[..., Tensor] = ops.feed_forward,
) -> Tensor:
    """`ops.feed_forward`, some tokens at a time, each part by `layer`."""
    tokens = x.reshape(-1, x.shape[-1])
    count = max(1, LIMIT // (weight_in.shape[0] * x.element_size()))
    if count >= len(tokens):
        return layer(x, weight_in, bias_in, weight_out, bias_out)
    out = tokens.new_empty(len(tokens), weight_out.shape[0])
    for first in range(0, len(tokens), count):
        part = slice(first, first + count)
        out[part] = layer(tokens[part], weight_in, bias_in, weight_out, bias_out)
    return out.reshape(*x.shape[:-1], -1)
