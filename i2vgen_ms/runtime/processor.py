"""Products on the CPU by oneDNN, which convolutions use anyway: beside the BLAS that PyTorch takes for fp32 it is as
fast on some processors and half as fast again on others.

Given networks for inference. What changes is the order of additions.
"""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from i2vgen_ms.tensors import ops

# Rows below which a product is no work.
ROWS = 32


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
    """`ops.feed_forward`."""
    return linear(ops.gated(linear(x, weight_in, bias_in)), weight_out, bias_out)


def takes(x: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN can do it and it is worth it; it remembers nothing for gradients."""
    plain = x.device.type == weight.device.type == "cpu" and x.dtype == weight.dtype == torch.float32
    return plain and _available() and x.numel() >= ROWS * x.shape[-1] and not torch.is_grad_enabled()


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return product


def _available() -> bool:
    mkldnn = torch.backends.mkldnn
    return bool(mkldnn.is_available() and mkldnn.enabled and _works())


@cache
def _works() -> bool:
    """Whether this PyTorch's operation is there, is called so, and gives products: it is not of its public ones."""
    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (torch.randn(shape, generator=generator) for shape in ((ROWS, 16), (24, 16), (24,)))
    try:
        return bool(torch.allclose(_product(x, weight, bias), F.linear(x, weight, bias), atol=1e-5))
    except Exception:  # whatever a call of another form, or none to call, raises
        return False
