"""Parking: what a network puts aside for later waits in page-locked memory of the host, and leaves the device's free.

A list of activations, of which the last is in use and the others are asked for last in, first out. It does not know
what they are. Only their place changes, not a number.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


class Parking:
    """A stack of tensors: `append`, `pop`, and the last one as `[-1]`; all but the last are parked.

    Copies to the host run beside computing. Copies back are short beside what reads them, and begin when they are asked
    for: earlier they would take the memory that parking is to save.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._stack: list[_Here | _Parked] = []

    def __len__(self) -> int:
        return len(self._stack)

    def __getitem__(self, index: int) -> Tensor:
        """The last one; of the others nothing is there."""
        self._stack[index] = here = _Here(self._back(self._stack[index]))
        return here.tensor

    def append(self, tensor: Tensor) -> None:
        """Puts a tensor on top, and parks the one below it."""
        if self._stack:
            below = self._stack.pop()
            self._stack.append(self._parked(below.tensor) if isinstance(below, _Here) else below)
        self._stack.append(_Here(tensor))

    def pop(self) -> Tensor:
        """Takes the last one off, to the device if it was parked."""
        return self._back(self._stack.pop())

    def _parked(self, tensor: Tensor) -> _Parked:
        if self._stream is None:
            return _Parked(tensor.clone(), None)
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            host, copied = tensor.to("cpu", non_blocking=True), torch.cuda.Event()
            copied.record(self._stream)
        tensor.record_stream(self._stream)  # the memory is used again only when the copy has been made
        return _Parked(host, copied)

    def _back(self, entry: _Here | _Parked) -> Tensor:
        if isinstance(entry, _Here):
            return entry.tensor
        if entry.copied is not None:
            torch.cuda.current_stream(self._device).wait_event(entry.copied)
        return entry.host.to(self._device, non_blocking=True)


@dataclass(frozen=True)
class _Here:
    tensor: Tensor


@dataclass(frozen=True)
class _Parked:
    host: Tensor
    copied: torch.cuda.Event | None
