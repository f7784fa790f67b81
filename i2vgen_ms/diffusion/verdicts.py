"""Verdicts: whether tensors are finite, found out without anybody waiting for the device that computes them.

Given tensors, and the words of the error for each. It does not know what they are.
"""

from __future__ import annotations

import torch
from torch import Tensor

from i2vgen_ms.errors import NonFiniteError
from i2vgen_ms.tensors.arrival import Arrival


class Verdicts:
    """On a CUDA device a verdict is read when the next one is asked for: the device has more to do by then, so that
    waiting for it costs nothing, and whoever asks is never more than one question ahead."""

    def __init__(self) -> None:
        self._open: tuple[Arrival, str] | None = None

    def ask(self, x: Tensor, words: str) -> None:
        """Raises: NonFiniteError with these words if x is not finite, here or, on a CUDA device, in the next call."""
        answer = Arrival(torch.isfinite(x).all())
        self.settle()
        self._open = answer, words
        if x.device.type != "cuda":
            self.settle()

    def settle(self) -> None:
        """Reads the verdict that is open, if one is. Raises: NonFiniteError."""
        if self._open is None:
            return
        (answer, words), self._open = self._open, None
        if not bool(answer.wait()):
            raise NonFiniteError(words)
