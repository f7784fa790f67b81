"""Verdicts: whether tensors are finite, found out without anybody waiting for the device that computes them.

Given tensors, and the words of the error for each. It does not know what they are.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from i2vgen_ms.errors import NonFiniteError


class Verdicts:
    """On a CUDA device a verdict is read when the next one is asked for: the device has more to do by then, so that
    waiting for it costs nothing, and whoever asks is never more than one question ahead."""

    def __init__(self) -> None:
        self._open: tuple[Callable[[], bool], str] | None = None

    def ask(self, x: Tensor, words: str) -> None:
        """Raises: NonFiniteError with these words if x is not finite, here or, on a CUDA device, in the next call."""
        answer = later(torch.isfinite(x).all())
        self.settle()
        self._open = answer, words
        if x.device.type != "cuda":
            self.settle()

    def settle(self) -> None:
        """Reads the verdict that is open, if one is. Raises: NonFiniteError."""
        if self._open is None:
            return
        (answer, words), self._open = self._open, None
        if not answer():
            raise NonFiniteError(words)


def later(flag: Tensor) -> Callable[[], bool]:
    """What tells the flag's value, once what was asked of its device so far is done."""
    if flag.device.type != "cuda":
        return lambda: bool(flag)
    copy = torch.empty((), dtype=torch.bool, pin_memory=True)
    copy.copy_(flag, non_blocking=True)
    done = torch.cuda.Event()
    done.record(torch.cuda.current_stream(flag.device))

    def answer() -> bool:
        done.synchronize()
        return bool(copy)

    return answer
