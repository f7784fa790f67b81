"""Convolutions of three taps by Winograd's minimal filtering: 16 products for two by two places where there are 36, and
along frames four for two where there are six.

Of each four places, two apart, sums and differences are taken, along each axis; so are of the weights; each of the four
(or 16) has a product of its own, and what these give is summed to two places (Lavin and Gray 2016, "Fast algorithms for
convolutional neural networks", section 4: F(2x2, 3x3)). Its factors are 1 and 1/2 and its sums are shorter than a
convolution's, so that no digit is lost: it was seen to be nearer to the truth than oneDNN's convolutions. It knows
nothing of who multiplies.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

# Channels below which the sums take what the products save, and rows of a product below which the weights' sums do.
CHANNELS, ROWS = 160, 96
# Bytes of all sums of the inputs, or of the products: about so many at a time, or up to this where a frame has more.
SOME, MOST = 64 * 2**20, 256 * 2**20
# What the products see of three taps.
_TAPS = ((1.0, 0.0, 0.0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0.0, 0.0, 1.0))

# `x: n i` and `weight: o i` to `n o`.
Product = Callable[[Tensor, Tensor], Tensor]


def fits_spatial(x: Tensor, weight: Tensor, *, stride: int, padding: tuple[int, int]) -> bool:
    """Whether `conv_spatial` is a way to convolve `x: b f h w i` with `weight: o i kh kw`, and a faster one."""
    b, f, h, w, _ = x.shape
    form = weight.shape[2:] == (3, 3) and stride == 1 and tuple(padding) == (1, 1) and h % 2 == w % 2 == 0
    much = min(weight.shape[:2]) >= CHANNELS and b * f * h * w >= 4 * ROWS
    return form and much and 4 * _frame_bytes(x, weight) <= MOST


def fits_temporal(x: Tensor, weight: Tensor) -> bool:
    """The same of `conv_temporal`, with `weight: o i k 1`; half as much is saved, so twice as many rows are needed."""
    b, f, h, w, _ = x.shape
    much = min(weight.shape[:2]) >= CHANNELS and b * f * h * w >= 4 * ROWS
    return weight.shape[2:] == (3, 1) and f % 2 == 0 and much and 2 * b * f * _frame_bytes(x, weight) <= MOST


def conv_spatial(x: Tensor, weight: Tensor, bias: Tensor | None, product: Product) -> Tensor:
    """`ops.conv_spatial` of what fits, without gradients."""
    frames, matrices = x.flatten(0, 1), _matrices(weight, axes=2)
    out = x.new_empty(*frames.shape[:-1], len(weight))
    parts = -(-len(frames) // max(1, SOME // (4 * _frame_bytes(x, weight))))
    for given, made in zip(frames.tensor_split(parts), out.tensor_split(parts), strict=True):
        rows = _inputs(F.pad(given, (0, 0, 1, 1, 1, 1)), 1)
        columns = [
            [product(one.flatten(0, -2), m) for one, m in zip(_inputs(each, 2), ms, strict=True)]
            for each, ms in zip(rows, matrices, strict=True)
        ]
        both = [_outputs(of_a_row) for of_a_row in columns]
        for column in range(2):
            _put(_outputs([pair[column] for pair in both]), bias, made[:, :, column::2])
    return out.unflatten(0, x.shape[:2])


def conv_temporal(x: Tensor, weight: Tensor, bias: Tensor | None, product: Product) -> Tensor:
    """`ops.conv_temporal` of what fits, without gradients."""
    out = x.new_empty(*x.shape[:-1], len(weight))
    given = _inputs(F.pad(x, (0, 0, 0, 0, 0, 0, 1, 1)), 1)
    made = [product(one.flatten(0, -2), m) for one, m in zip(given, _matrices(weight, axes=1), strict=True)]
    _put(_outputs(made), bias, out)
    return out


def _frame_bytes(x: Tensor, weight: Tensor) -> int:
    return x.shape[2] * x.shape[3] * max(weight.shape[:2]) * x.element_size()


def _inputs(x: Tensor, axis: int) -> Tensor:
    """What the products see of each four places, two apart, along an axis; the four come first."""
    count = x.shape[axis] // 2 - 1
    every_other = (*[slice(None)] * axis, slice(None, None, 2))
    a, b, c, d = (x.narrow(axis, first, 2 * count - 1)[every_other] for first in range(4))
    out = x.new_empty(4, *a.shape)
    for one, (left, right, sign) in zip(out, ((a, c, -1), (b, c, 1), (c, b, -1), (b, d, -1)), strict=True):
        torch.add(left, right, alpha=sign, out=one)
    return out


def _outputs(made: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Two places of four products, which are written over."""
    a, b, c, d = made
    total = b + c
    return total.add_(a), b.sub_(c).sub_(d)


def _put(pair: tuple[Tensor, Tensor], bias: Tensor | None, out: Tensor) -> None:
    """Two places that follow each other along the second axis, with the bias, to where they belong."""
    for first, one in enumerate(pair):
        place = out[:, first::2]
        torch.add(one.view(place.shape), 0 if bias is None else bias, out=place)


def _matrices(weight: Tensor, *, axes: int) -> Tensor:
    """`4 o i` of `o i 3 1`, or `4 4 o i` of `o i 3 3`: what the products see of the taps along one axis or both."""
    taps = weight.new_tensor(_TAPS)
    both = torch.kron(taps, taps) if axes == 2 else taps
    flat = weight.reshape(weight[..., 0, 0].numel(), 3**axes)
    return torch.mm(both, flat.t()).view(*[4] * axes, *weight.shape[:2])
