"""Arrival: a tensor on its way from a device to the host, while the device goes on with what it is given next."""

from __future__ import annotations

import torch
from torch import Tensor


class Arrival:
    """Begins to copy `tensor` to the host; `wait` gives the copy, and may be called by another thread.

    A tensor that is on the host is given back as it is.
    """

    def __init__(self, tensor: Tensor) -> None:
        self._copied: torch.cuda.Event | None = None
        self._host = tensor
        if tensor.is_cuda:
            # To page-locked memory, which is what torch takes for a copy that nobody waits for.
            self._host = tensor.to("cpu", non_blocking=True)
            # blocking: who waits sleeps, and leaves the processor to the thread that gives the device its work
            self._copied = torch.cuda.Event(blocking=True)
            self._copied.record(torch.cuda.current_stream(tensor.device))

    def wait(self) -> Tensor:
        """The tensor on the host, once it is there."""
        if self._copied is not None:
            self._copied.synchronize()
        return self._host


def page_locked(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor in memory from which copies to a CUDA device run beside computing; itself for any other device."""
    return tensor.pin_memory() if device.type == "cuda" else tensor
