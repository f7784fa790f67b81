"""Products for CUDA devices, in fewer launches; what they compute is `tensors.ops`'s."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from i2vgen_ms.tensors import ops


def linears(x: Tensor, layers: Sequence[nn.Module]) -> tuple[Tensor, ...]:
    """`ops.linears` as one product, of plain layers without bias: x is read once. The weights are put together anew.

    That is a thousandth of the product's work, and so they may be moved and changed as ever. Layers that are anything
    else, such as those with adapters or hooks, are called one by one.
    """
    if not all(map(_is_a_product, layers)):
        return ops.linears(x, layers)
    weights: list[Tensor] = [layer.weight for layer in layers]  # type: ignore[misc]
    return F.linear(x, torch.cat(weights)).split([len(weight) for weight in weights], dim=-1)


def _is_a_product(layer: nn.Module) -> bool:
    changed = layer._forward_hooks or layer._forward_pre_hooks or "forward" in vars(layer)
    return type(layer) is nn.Linear and layer.bias is None and not changed
