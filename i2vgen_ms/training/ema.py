"""The average of a network's weights over its training, which is what is shown and shipped.

Given parameters by name. It knows neither optimiser nor task.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Average:
    """An exponential moving average of parameters, fp32, on their device.

    decay: of an old value a step. The first steps decay faster, by (1 + n) / (10 + n) for the n-th, so that the
    average forgets the random start.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float) -> None:
        self._parameters, self._decay = dict(parameters), decay
        self.count = 0
        self.values: dict[str, Tensor] = {
            name: parameter.detach().float().clone() for name, parameter in self._parameters.items()
        }

    @torch.no_grad()
    def update(self) -> None:
        """Takes in the parameters as they are now."""
        self.count += 1
        decay = min(self._decay, (1 + self.count) / (10 + self.count))
        now = [parameter.detach().float() for parameter in self._parameters.values()]
        torch._foreach_lerp_(list(self.values.values()), now, 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within the block the network computes with the average."""
        kept = {name: parameter.data for name, parameter in self._parameters.items()}
        try:
            for name, parameter in self._parameters.items():
                parameter.data = self.values[name].to(parameter.dtype)
            yield
        finally:
            for name, parameter in self._parameters.items():
                parameter.data = kept[name]
