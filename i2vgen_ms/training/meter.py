"""Sums of what steps give, kept on the device until somebody looks."""

from __future__ import annotations

import time
from collections.abc import Mapping

import torch
from torch import Tensor


class Meter:
    """Means over steps, and the pace of these steps."""

    def __init__(self) -> None:
        self._start()

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Takes in one step's numbers; nothing waits for them."""
        self.count += 1
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0) + value.detach()
            self._counts[name] = self._counts.get(name, 0) + 1

    def total(self, name: str) -> Tensor | float:
        """The sum of one number since the last look, still on the device; it does not count as a look."""
        return self._sums.get(name, 0.0)

    def read(self) -> dict[str, float]:
        """The means and the `steps a second` since the last look; waits for the device, and begins anew."""
        names = list(self._sums)
        sums = torch.stack([torch.as_tensor(self._sums[name]).float() for name in names]).tolist() if names else []
        means = {name: total / self._counts[name] for name, total in zip(names, sums, strict=True)}
        means["steps a second"] = self.count / max(time.monotonic() - self._since, 1e-9)
        self._start()
        return means

    def _start(self) -> None:
        self.count, self._since = 0, time.monotonic()
        self._sums: dict[str, Tensor | float] = {}
        self._counts: dict[str, int] = {}
