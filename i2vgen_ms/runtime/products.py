"""Products for CUDA devices, in forms for which cuBLAS is fast; what they compute is `tensors.ops`'s."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from i2vgen_ms.tensors import ops

# Up to so many channels cuBLAS's product that adds a bias takes twice as long as the one without (88 us instead of 46
# for 115200 rows of 320 channels on an H200), which is more than who reads the result needs for adding it.
NARROW = 320


def linears(x: Tensor, layers: Sequence[nn.Module]) -> tuple[Tensor, ...]:
    """`ops.linears` as one product, of plain layers without bias: x is read once.

    Weights that do not lie one after the other are put together anew. That is a thousandth of the product's work, and
    so they may be moved and changed as ever. Layers that are anything else, such as those with adapters or hooks, are
    called one by one.
    """
    if not all(_is_a_product(layer) and layer.bias is None for layer in layers):
        return ops.linears(x, layers)
    weights: list[Tensor] = [layer.weight for layer in layers]  # type: ignore[misc]
    return F.linear(x, _together(weights)).split([len(weight) for weight in weights], dim=-1)


def linear(x: Tensor, layer: nn.Module) -> tuple[Tensor, Tensor | None]:
    """`ops.linear` of a plain narrow layer without its bias, which the result lacks then."""
    if not _is_a_product(layer) or layer.bias is None or len(layer.bias) > NARROW:  # type: ignore[arg-type]
        return ops.linear(x, layer)
    return F.linear(x, layer.weight), layer.bias  # type: ignore[arg-type, return-value]


def _is_a_product(layer: nn.Module) -> bool:
    changed = layer._forward_hooks or layer._forward_pre_hooks or "forward" in vars(layer)
    return type(layer) is nn.Linear and not changed


def _together(weights: Sequence[Tensor]) -> Tensor:
    """Weights `o i` of as many inputs as one; a view where they lie so, as those of a block do."""
    first, place = weights[0], weights[0].data_ptr()
    for weight in weights:
        alike = weight.is_contiguous() and weight.dtype == first.dtype
        same = weight.untyped_storage().data_ptr() == first.untyped_storage().data_ptr()
        followed = weight.requires_grad and torch.is_grad_enabled()  # a view would be of the first weight alone
        if not alike or not same or followed or weight.data_ptr() != place:
            return torch.cat(list(weights))
        place += weight.nbytes
    return first.as_strided((sum(map(len, weights)), first.shape[1]), (first.shape[1], 1))
