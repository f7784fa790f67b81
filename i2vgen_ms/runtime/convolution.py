"""Convolutions for CUDA devices, in the forms for which cuDNN has good kernels; what they compute is `tensors.ops`'s.

Given activations `b f h w c`. It knows no Triton: who adds a bias in one pass is handed in.
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from i2vgen_ms.tensors import ops


def conv_temporal(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`ops.conv_temporal` in three dimensions, where `b f h w c` is an order of memory that cuDNN knows.

    In two, the places of a frame are a row of some ten thousand columns, for which its kernels are not made.
    """
    y = F.conv3d(x.movedim(-1, 1), weight.unsqueeze(3), bias, padding=(weight.shape[2] // 2, 0, 0))
    return y.movedim(1, -1)


def conv_halved(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`ops.conv_halved`, with weights that have a row and a column of zeros first: so the activation is not copied."""
    return ops.conv_spatial(x, F.pad(weight, (1, 0, 1, 0)), bias, stride=2)


def bias_apart(
    convolution: Callable[..., Tensor], add_bias_: Callable[[Tensor, Tensor], Tensor]
) -> Callable[..., Tensor]:
    """A convolution whose bias is added by `add_bias_` in place; PyTorch's own pass for it is three times as slow."""

    def without(x: Tensor, weight: Tensor, bias: Tensor | None, **options: object) -> Tensor:
        y = convolution(x, weight, None, **options)
        return y if bias is None else add_bias_(y, bias)

    return without
