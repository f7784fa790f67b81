"""Products on the CPU by oneDNN, which convolutions use anyway: beside the BLAS that PyTorch takes for fp32 it is as
fast on some processors and twice as fast on others.

Given networks for inference. What changes is what rounding does. The operation is not one of PyTorch's public ones:
it is tried before it is used, and where it is missing or wrong, everything is as PyTorch does it.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from i2vgen_ms.runtime import winograd
from i2vgen_ms.tensors import ops

# Rows below which a product is no work.
ROWS = 32
# How many times as large as an activation the weights of a convolution are when it is better done as a product.
LARGE = 16
# The hidden values of a feed-forward that are computed at a time: with more of them nothing is faster, and with fewer
# the products are slower.
HIDDEN_BYTES = 32 * 2**20


class Linear(nn.Linear):
    """`nn.Linear` by `linear`."""

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight, self.bias)


def quicken(network: nn.Module) -> nn.Module:
    """The network itself, whose linear layers are `Linear` now."""
    for module in network.modules():
        if type(module) is nn.Linear:
            module.__class__ = Linear
    return network


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`F.linear`."""
    if not takes(x, weight):
        return F.linear(x, weight, bias)
    return _product(x.contiguous(), weight, bias)


def feed_forward(x: Tensor, weight_in: Tensor, bias_in: Tensor, weight_out: Tensor, bias_out: Tensor) -> Tensor:
    """`ops.feed_forward`, some rows at a time."""
    if torch.is_grad_enabled() or x.numel() <= _rows(x, weight_in) * x.shape[-1]:
        return _feed_forward(x, weight_in, bias_in, weight_out, bias_out)
    out = x.new_empty(*x.shape[:-1], weight_out.shape[0])
    for given, place in _parts(x, weight_in, out):
        place.copy_(_feed_forward(given, weight_in, bias_in, weight_out, bias_out))
    return out


def feed_forward_onto(
    x: Tensor,
    y: Tensor,
    norm: tuple[Tensor, Tensor],
    layers: tuple[Tensor, Tensor, Tensor, Tensor],
    *,
    shift: Tensor | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """`Ops.feed_forward_of_sum`; each part of the feed-forward is added to the sum where that lies."""
    total, normal = ops.add_layer_norm(x, y, *norm, shift=shift)
    if torch.is_grad_enabled():
        return ops.add(total, _feed_forward(normal, *layers), out=out)
    total = total.contiguous()
    for given, place in _parts(normal, layers[0], total):
        place.add_(_feed_forward(given, *layers))
    return total if out is None else out.copy_(total)


def _parts(x: Tensor, weight_in: Tensor, out: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Some rows of `x: ... i` at a time, and their places in `out: ... o`, which has no gaps."""
    rows = _rows(x, weight_in)
    return zip(x.flatten(0, -2).split(rows), out.flatten(0, -2).split(rows), strict=True)


def _rows(x: Tensor, weight_in: Tensor) -> int:
    return max(HIDDEN_BYTES // (weight_in.shape[0] * x.element_size()), ROWS)


def _feed_forward(x: Tensor, weight_in: Tensor, bias_in: Tensor, weight_out: Tensor, bias_out: Tensor) -> Tensor:
    return linear(ops.gated(linear(x, weight_in, bias_in)), weight_out, bias_out)


def conv_spatial(
    x: Tensor, weight: Tensor, bias: Tensor | None, *, stride: int = 1, padding: tuple[int, int] = (1, 1)
) -> Tensor:
    """`ops.conv_spatial` with fewer products (`winograd`); or with large weights a product of every place's
    surroundings, `b f h w (i kh kw)`.

    A convolution brings its weights into an order of its own first, each time, which then takes longer than the rest.
    """
    if takes(x, weight) and winograd.fits_spatial(x, weight, stride=stride, padding=padding):
        return winograd.conv_spatial(x, weight, bias, _product)
    if not _large(x, weight):
        return ops.conv_spatial(x, weight, bias, stride=stride, padding=padding)
    rows, columns = padding
    around = F.pad(x, (0, 0, columns, columns, rows, rows))
    around = around.unfold(2, weight.shape[2], stride).unfold(3, weight.shape[3], stride)
    return _around(around, weight, bias)


def conv_doubled(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`ops.conv_doubled` by the convolution of this module."""
    return conv_spatial(ops.double(x), weight, bias)


def conv_temporal(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`ops.conv_temporal` in the same ways; the product is of every place's frames around, `b f h w (i k)`."""
    if takes(x, weight) and winograd.fits_temporal(x, weight):
        return winograd.conv_temporal(x, weight, bias, _product)
    if not _large(x, weight):
        return ops.conv_temporal(x, weight, bias)
    frames = weight.shape[2] // 2
    around = F.pad(x, (0, 0, 0, 0, 0, 0, frames, frames)).unfold(1, weight.shape[2], 1)
    return _around(around.unsqueeze(-1), weight, bias)


def _large(x: Tensor, weight: Tensor) -> bool:
    return weight.numel() >= LARGE * x.numel() and takes(x, weight)


def _around(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`... i kh kw` and weights `o i kh kw` to `... o`, in the order in which the weights lie, which are not copied."""
    if not weight.is_contiguous():  # channels_last
        x, weight = x.movedim(-3, -1), weight.movedim(1, -1)
    return linear(x.flatten(-3), weight.flatten(1), bias)


def takes(x: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN can do it and it is worth it; it remembers nothing for gradients."""
    plain = x.device.type == weight.device.type == "cpu" and x.dtype == weight.dtype == torch.float32
    plain = plain and not torch.is_autocast_enabled("cpu")
    return plain and _available() and x.numel() >= ROWS * x.shape[-1] and not torch.is_grad_enabled()


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return product


def _available() -> bool:
    mkldnn = torch.backends.mkldnn
    return bool(mkldnn.is_available() and mkldnn.enabled and _works())


@cache
def _works() -> bool:
    """Whether this PyTorch's operation is there, is called so, and gives products: it is not of its public ones."""
    generator = torch.Generator().manual_seed(0)
    x, several, bias = (torch.randn(shape, generator=generator) for shape in ((ROWS, 16), (2, 24, 16), (24,)))
    weight = several[1]
    try:
        tried = ((_product(x, weight, one), F.linear(x, weight, one)) for one in (bias, None))
        return all(torch.allclose(*pair, atol=1e-5) for pair in tried)
    except Exception:  # whatever a call of another form, or none to call, raises
        return False
