"""Convolutions of three taps by Winograd's minimal filtering: 16 products for two by two places where there are 36, and
along frames four for two where there are six.

Of each four places, two apart, sums and differences are taken, along each axis; so are of the weights; each of the four
(or 16) has a product of its own, and what these give is summed to two places (Lavin and Gray 2016, "Fast algorithms for
convolutional neural networks", section 4: F(2x2, 3x3)). Its factors are 1 and 1/2 and its sums are shorter than a
convolution's, so that no digit is lost: it was seen to be nearer to the truth than oneDNN's convolutions. Where a
convolution gives infinity it may give NaN. It knows nothing of who multiplies.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

# Channels below which the sums take what the products save, and rows of a product below which the weights' sums do.
CHANNELS, ROWS = 128, 96
# Bytes that a part of the work takes beside its input, its output and the weights' sums, which are 16/9 of the weights;
# of a place, in tensors of its input or output, whichever is larger.
SOME, TAKEN = 128 * 2**20, 6
# What the products see of three taps.
_TAPS = ((1.0, 0.0, 0.0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0.0, 0.0, 1.0))

# `x: n i` and `weight: o i` to `n o`.
Product = Callable[[Tensor, Tensor], Tensor]


def fits_spatial(x: Tensor, weight: Tensor, *, stride: int, padding: tuple[int, int]) -> bool:
    """Whether `conv_spatial` is a way to convolve `x: b f h w i` with `weight: o i kh kw`, and a faster one."""
    h, w = x.shape[2:4]
    form = weight.shape[2:] == (3, 3) and stride == 1 and tuple(padding) == (1, 1)
    return form and h % 2 == w % 2 == 0 and _is_much(x, weight)


def fits_temporal(x: Tensor, weight: Tensor) -> bool:
    """The same of `conv_temporal`, with `weight: o i k 1`."""
    return weight.shape[2:] == (3, 1) and x.shape[1] % 2 == 0 and _is_much(x, weight)


def conv_spatial(x: Tensor, weight: Tensor, bias: Tensor | None, product: Product) -> Tensor:
    """`ops.conv_spatial` of what fits, without gradients."""
    matrices, frames = _matrices(weight, axes=2), x.flatten(0, 1)
    out = x.new_empty(*frames.shape[:-1], len(weight))
    h, row = x.shape[2], x[0, 0, 0, :, 0].numel() * _place_bytes(x, weight)
    count = max(1, SOME // (h * row))
    for given, made in zip(frames.split(count), out.split(count), strict=True):
        rows = max(2, SOME // (len(given) * row) // 2 * 2)
        for top in range(0, h, rows):
            end = min(h, top + rows)
            edges = int(top == 0), int(end == h)
            seen = F.pad(given[:, max(0, top - 1) : end + 1], (0, 0, 1, 1, *edges))
            _within(seen, matrices, bias, product, made[:, top:end])
    return out.unflatten(0, x.shape[:2])


def conv_temporal(x: Tensor, weight: Tensor, bias: Tensor | None, product: Product) -> Tensor:
    """`ops.conv_temporal` of what fits, without gradients."""
    matrices, places = _matrices(weight, axes=1), x.flatten(2, 3)
    out = x.new_empty(*places.shape[:-1], len(weight))
    count = max(1, SOME // (x[:, :, 0, 0, 0].numel() * _place_bytes(x, weight)))
    for given, made in zip(places.split(count, 2), out.split(count, 2), strict=True):
        seen = _inputs(F.pad(given, (0, 0, 0, 0, 1, 1)), 1)
        _put(_outputs(_products(seen, matrices, product)), bias, made)
    return out.unflatten(2, x.shape[2:4])


def _is_much(x: Tensor, weight: Tensor) -> bool:
    return min(weight.shape[:2]) >= CHANNELS and x[..., 0].numel() >= 4 * ROWS


def _place_bytes(x: Tensor, weight: Tensor) -> int:
    return TAKEN * max(weight.shape[:2]) * x.element_size()


def _within(x: Tensor, matrices: Tensor, bias: Tensor | None, product: Product, out: Tensor) -> None:
    """`x: n (h + 2) (w + 2) i` and matrices `4 4 o i` to `out: n h w o`."""
    pairs = [
        _outputs(_products(_inputs(row, 2), of_a_row, product))
        for row, of_a_row in zip(_inputs(x, 1), matrices, strict=True)
    ]
    for column in range(2):
        _put(_outputs([pair[column] for pair in pairs]), bias, out[:, :, column::2])


def _products(given: Tensor, matrices: Tensor, product: Product) -> list[Tensor]:
    return [product(one.flatten(0, -2), matrix) for one, matrix in zip(given, matrices, strict=True)]


def _inputs(x: Tensor, axis: int) -> Tensor:
    """What the products see of each four places, two apart, along an axis; the four come first."""
    a, b, c, d = x.unfold(axis, 4, 2).unbind(-1)
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
