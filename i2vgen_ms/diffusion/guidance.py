"""Guidance: two conditions, one network output.

Given a network, a state and the arguments of the two branches. It does not know what the arguments mean, nor what the
output predicts.

A network may say more of itself than that it can be called (see `Sharing`); any other callable is given each branch's
arguments as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol, TypeGuard

import torch
from torch import Tensor

from i2vgen_ms.errors import ArgumentError, ConfigurationError, nearest

Network = Callable[..., Tensor]
Guided = Callable[[Tensor, Tensor], Tensor]


class Sharing(Protocol):
    """A network that computes once what its conditions share, and what does not change from step to step.

    per_condition: the names of arguments whose batch may be g times that of the others: g conditions for each of b
    items, the b items under the first of them first; the output then has the batch `g b` in that order.
    prepare: the arguments of a call but x and t to others, in place of them, for the many calls of one video.
    """

    per_condition: tuple[str, ...]

    def __call__(self, x: Tensor, t: Tensor, **conditions: Any) -> Tensor: ...

    def prepare(self, **conditions: Any) -> dict[str, Any]: ...


BRANCHES = ("batched", "sequential")


class ClassifierFree:
    """Classifier-free guidance (Ho and Salimans 2022): `negative + scale (positive - negative)`.

    scale: 1 runs the positive branch alone.
    rescale: in [0, 1]; how far the standard deviation of the guided output is pulled back to that of the positive one,
        over all but the batch axis, on the network's output whatever it predicts (Lin et al. 2023, section 3.4).
    branches: `batched` runs both in one call; `sequential` in one call after the other, which takes less memory.
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
        return self.conditioned(network, positive, negative)(x, t)

    def conditioned(self, network: Network, positive: Mapping[str, Any], negative: Mapping[str, Any]) -> Guided:
        """The guided output as a function of x and t alone, for the many steps of one video; arguments as above."""
        if self.scale == 1:
            alone = _prepared(network, positive)
            return lambda x, t: _wide(alone(x, t))
        if self.branches == "batched":
            together = _together(network, positive, negative)

            def both(x: Tensor, t: Tensor) -> Tensor:
                plus, minus = _wide(together(x, t)).chunk(2)
                return self._guided(plus, minus)

            return both
        first, second = _prepared(network, positive), _prepared(network, negative)
        return lambda x, t: self._guided(_wide(first(x, t)), _wide(second(x, t)))

    def _guided(self, plus: Tensor, minus: Tensor) -> Tensor:
        out = minus + self.scale * (plus - minus)
        if self.rescale:
            ratio = plus.flatten(1).std(dim=1) / (out.flatten(1).std(dim=1) + 1e-12)
            factor = self.rescale * ratio + (1 - self.rescale)
            out = out * factor.reshape((-1,) + (1,) * (out.ndim - 1))
        return out


def shares(network: Any) -> TypeGuard[Sharing]:
    """Whether the network says more of itself than that it can be called."""
    return hasattr(network, "per_condition") and hasattr(network, "prepare")


def _prepared(network: Network, conditions: Mapping[str, Any]) -> Guided:
    """The network under these conditions."""
    ready = network.prepare(**conditions) if shares(network) else conditions
    return lambda x, t: network(x, t, **ready)


def _together(network: Network, positive: Mapping[str, Any], negative: Mapping[str, Any]) -> Guided:
    """Both branches in one call of the network, the positive one first."""
    both = _join(positive, negative)
    if shares(network):
        same = [name for name in both if name not in network.per_condition]
        # Only what is the same object is known to be equal without waiting for a device.
        if all(positive[name] is negative[name] for name in same):
            return _prepared(network, both | {name: positive[name] for name in same})
    twice = _prepared(network, both)
    return lambda x, t: twice(torch.cat([x, x]), torch.cat([t, t]))


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
