"""A block: tensors of a network that move between the host and a device together, as one buffer.

Given parameters and buffers that do not change. It knows neither the network nor when to move.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from contextlib import suppress

import torch
from torch import Tensor

# Views of one buffer begin at multiples of this, as the allocator's own tensors do.
ALIGNMENT = 512


class Block:
    """Tensors that are on the host or on `device`; on the host they are kept in one page-locked buffer.

    The values never change, so that leaving the device costs a copy only the first time.
    """

    def __init__(self, tensors: Sequence[Tensor], device: torch.device) -> None:
        self.tensors, self.device = list(tensors), device
        # Of each tensor: shape, strides, and where in the buffer it begins, in numbers of its own kind.
        self._places: list[tuple[torch.Size, tuple[int, ...], int]] = []
        offset = 0
        for tensor in self.tensors:
            self._places.append((tensor.shape, _strides(tensor), offset // tensor.element_size()))
            offset += -(-tensor.nbytes // ALIGNMENT) * ALIGNMENT
        self.nbytes = offset
        """Bytes of the buffer."""
        self._host: Tensor | None = None
        self._host_views: list[Tensor] = []

    def host(self) -> Tensor:
        """The buffer on the host; the first call makes it from where the tensors are."""
        if self._host is None:
            buffer = torch.empty(self.nbytes, dtype=torch.uint8)
            if self.device.type == "cuda":
                _lock_pages(self, buffer)
            self._host_views = self.views(buffer)
            for view, tensor in zip(self._host_views, self.tensors, strict=True):
                view.copy_(tensor)
            self._host = buffer
        return self._host

    def point_at(self, views: Sequence[Tensor]) -> None:
        """Makes the tensors views of a buffer that holds their values."""
        for tensor, view in zip(self.tensors, views, strict=True):
            tensor.data = view

    def to_device(self) -> None:
        """Copies the tensors to the device; the copy is ordered on its current stream."""
        buffer = torch.empty(self.nbytes, dtype=torch.uint8, device=self.device)
        buffer.copy_(self.host(), non_blocking=True)
        self.point_at(self.views(buffer))

    def to_host(self) -> None:
        """Makes the tensors those of the host, and lets go of the device's memory."""
        self.host()
        self.point_at(self._host_views)

    def views(self, buffer: Tensor) -> list[Tensor]:
        """What the tensors are in a buffer of `nbytes` bytes that is a tensor of its own, not a part of another."""
        whole = {kind: buffer.view(kind) for kind in {tensor.dtype for tensor in self.tensors}}
        return [
            whole[tensor.dtype].as_strided(*place) for tensor, place in zip(self.tensors, self._places, strict=True)
        ]


def _strides(tensor: Tensor) -> tuple[int, ...]:
    """The strides of a copy without gaps, which keeps the order of the axes in memory."""
    return torch.empty_like(tensor, device="meta").stride()


def _lock_pages(owner: Block, buffer: Tensor) -> None:
    """Page-locks a buffer for as long as its owner lives, so that copies run beside computing.

    Registered, not allocated, because torch's allocator of page-locked memory rounds up to powers of two. Without the
    lock (a limit of the system) everything works, slower.
    """
    if not buffer.nbytes:
        return
    runtime, address = torch.cuda.cudart(), buffer.data_ptr()
    if int(runtime.cudaHostRegister(address, buffer.nbytes, 0)) == 0:
        weakref.finalize(owner, _unlock_pages, buffer).atexit = False
        return
    # CUDA remembers the error, and torch would raise it after the next kernel that it starts, whoever asks for that
    # one: so one is started that nobody needs. Raising it is what clears it.
    with suppress(RuntimeError):
        torch.zeros(1, device=owner.device).add_(1)


def _unlock_pages(buffer: Tensor) -> None:
    torch.cuda.cudart().cudaHostUnregister(buffer.data_ptr())
