"""A group norm in two halves, for who does a frame in strips: what it multiplies with and adds, and doing that.

Plain definitions, as in ops.py.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def group_scales(
    x: Tensor, weight: Tensor, bias: Tensor, *, groups: int, eps: float, rows: int, shift: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """What the group norm of each frame of `x + shift` multiplies x with, and what it adds: `b f 1 1 c`, at least fp32.

    rows: of `x: b f h w c`, how many may be copied at a time. shift: `c`. Mean and variance are taken of so many rows,
    each channel's on its own, and merged (Chan et al. 1979, "Updating formulae", equation 2.1): they are never
    differences of large sums.
    """
    working = torch.promote_types(x.dtype, torch.float32)
    count = 0
    mean = square = x.new_zeros((*x.shape[:2], x.shape[-1]), dtype=working)
    for strip in x.split(rows, dim=2):
        values = strip.to(working, copy=True).flatten(2, 3)
        more, own = values.shape[2], values.mean(2)
        inner = values.sub_(own.unsqueeze(2)).square_().sum(2)
        apart, share = own - mean, more / (count + more)
        mean, square = mean + apart * share, square + inner + apart.square() * (count * share)
        count += more
    added = torch.zeros_like(mean) if shift is None else shift.to(mean)
    parts = (mean + added).unflatten(-1, (groups, -1))
    centre = parts.mean(-1, keepdim=True)
    within = (square / count).unflatten(-1, (groups, -1))
    variance = (within + (parts - centre).square()).mean(-1, keepdim=True)
    scale = weight.to(mean) * (variance + eps).rsqrt().expand_as(parts).flatten(-2)
    offset = bias.to(mean) + (added - centre.expand_as(parts).flatten(-2)) * scale
    return scale[:, :, None, None], offset[:, :, None, None]


def scaled_silu(x: Tensor, scale: Tensor, offset: Tensor) -> Tensor:
    """SiLU of `x * scale + offset` for `x: b f h w c`, rounded once; scale and offset as `group_scales` gives them."""
    return F.silu(x.to(scale.dtype, copy=True).mul_(scale).add_(offset), inplace=True).to(x.dtype)
