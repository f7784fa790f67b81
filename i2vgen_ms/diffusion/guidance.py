"""Guidance: two conditions, one network output.

Given a network, a state and the arguments of the two branches. It does not know what the arguments mean, nor what the
output predicts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from i2vgen_ms.errors import ArgumentError, ConfigurationError, nearest

Network = Callable[..., Tensor]

BRANCHES = ("batched", "sequential")


class ClassifierFree:
    """Classifier-free guidance (Ho and Salimans 2022): `negative + scale (positive - negative)`.

    scale: 1 runs the positive branch alone.
    rescale: in [0, 1]; how far the standard deviation of the guided output is pulled back to that of the positive one,
        over all but the batch axis, on the network's output whatever it predicts (Lin et al. 2023, section 3.4).
    branches: `batched` runs both as one batch of 2 b; `sequential` one after the other, in half the memory.
    """

    def __init__(
        self, *, scale: float, rescale: float = 0.0, branches: Literal["batched", "sequential"] = "batched"
    ) -> None:
        if not 0 <= rescale <= 1:
            raise ConfigurationError(f"guidance rescale must lie in 0..1, not {rescale}")
        if branches not in BRANCHES:
            raise ConfigurationError(f"guidance branches {branches!r} is unknown: {nearest(branches, BRANCHES)}")
        self.scale = scale
        self.rescale = rescale
        self.branches = branches

    def __call__(
        self, network: Network, x: Tensor, t: Tensor, positive: Mapping[str, Any], negative: Mapping[str, Any]
    ) -> Tensor:
        """The guided output, like x, at least fp32.

        network(x, t, **condition) -> output; t: (b,); positive, negative: arguments of the network with the same
        names, tensors with the batch first.
        """
        if self.scale == 1:
            return _wide(network(x, t, **positive))
        if self.branches == "batched":
            both = network(torch.cat([x, x]), torch.cat([t, t]), **_join(positive, negative))
            plus, minus = _wide(both).chunk(2)
        else:
            plus, minus = _wide(network(x, t, **positive)), _wide(network(x, t, **negative))
        out = minus + self.scale * (plus - minus)
        if self.rescale:
            ratio = plus.flatten(1).std(dim=1) / (out.flatten(1).std(dim=1) + 1e-12)
            factor = self.rescale * ratio + (1 - self.rescale)
            out = out * factor.reshape((-1,) + (1,) * (out.ndim - 1))
        return out


def _wide(out: Tensor) -> Tensor:
    """The scale multiplies rounding errors too, so that half precision ends here."""
    return out.to(torch.promote_types(out.dtype, torch.float32))


def _join(positive: Mapping[str, Any], negative: Mapping[str, Any]) -> dict[str, Any]:
    if positive.keys() != negative.keys():
        raise ArgumentError(f"the guidance branches differ in their arguments: {sorted(positive)}, {sorted(negative)}")
    return {name: _pair(name, positive[name], negative[name]) for name in positive}


def _pair(name: str, plus: Any, minus: Any) -> Any:
    if isinstance(plus, Tensor) and isinstance(minus, Tensor):
        if plus.shape != minus.shape:
            raise ArgumentError(
                f"{name!r} has the shapes {tuple(plus.shape)} and {tuple(minus.shape)} in the two guidance branches, "
                "which cannot be batched; use branches='sequential'"
            )
        return torch.cat([plus, minus])
    if isinstance(plus, Tensor) or isinstance(minus, Tensor) or plus != minus:
        raise ArgumentError(
            f"{name!r} differs between the guidance branches and is not a tensor in both; use branches='sequential'"
        )
    return plus
