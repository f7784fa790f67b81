"""Residency: where the tensors of each network are, and which idle network gives way to one that runs.

Given networks that are loaded, and a device. On the CPU nothing ever moves. It does not know what a network computes;
one that can be streamed says so by `blocks()`, its modules in the order in which they run.
"""

from __future__ import annotations

import itertools
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from i2vgen_ms.runtime.block import Block
from i2vgen_ms.runtime.streaming import Stream

_LOCK = threading.RLock()
_RESIDENTS: weakref.WeakSet[Resident] = weakref.WeakSet()
_CLOCK = itertools.count()


class Resident:
    """One network that is on the host, on its device, or streamed to it; users are counted, so that threads may share.

    Args:
        network: with all its tensors in one place, the host or the device.
        device: where it computes.
        movable: False leaves it where it is for good, as on the CPU.
    """

    def __init__(self, network: Any, device: torch.device, *, movable: bool) -> None:
        self.network, self.device, self.movable = network, device, movable
        tensors = _tensors(network)
        self.nbytes = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        self.on_device = not movable or all(tensor.device == device for tensor in tensors)
        self._users, self._last_use = 0, next(_CLOCK)
        self._stream: Stream | None = None
        self._streamed, self._rest = _blocks(network, device)
        with _LOCK:
            _RESIDENTS.add(self)

    @property
    def streamable(self) -> bool:
        """Whether the network says in which blocks it runs."""
        return bool(self._streamed)

    @property
    def streaming(self) -> bool:
        """Whether its weights come and go while it runs; it stays so for as long as anybody uses it."""
        return self._stream is not None

    @property
    def streamed_bytes(self) -> int:
        """What the network takes on the device while it is streamed, at most."""
        sizes = [block.nbytes for _, block in self._streamed]
        neighbours = zip(sizes, [*sizes[1:], *sizes[:1]], strict=True)
        return max(map(sum, neighbours), default=0) + sum(block.nbytes for block in self._rest)

    @property
    def idle(self) -> bool:
        return self._users == 0

    @contextmanager
    def placed(self, *, stream: bool, keep: bool, workspace: int = 0) -> Iterator[Any]:
        """The network, ready to run on its device.

        stream: block by block, if it can be and is not there as a whole for somebody else. keep: leave it there
        afterwards. workspace: bytes that running it needs beside it; idle networks leave the device to make room.
        """
        if not self.movable:
            yield self.network
            return
        with _LOCK:
            self._users += 1
            try:
                if self._users == 1:
                    self._arrive(stream=stream and self.streamable, workspace=workspace)
            except BaseException:
                self._users -= 1
                if not self.on_device:
                    self.leave()  # what had arrived before the memory was full
                raise
        try:
            yield self.network
        finally:
            with _LOCK:
                self._users -= 1
                self._last_use = next(_CLOCK)
                if self._users == 0 and not (keep and self.on_device):
                    self.leave()

    def leave(self) -> None:
        """Moves the network to the host and gives its memory back; nobody may be using it."""
        with _LOCK:
            if self._stream is not None:
                self._stream.close()
                self._stream = None
            for block in self._all():
                block.to_host()
            self.on_device = False
        _give_back(self.device)

    def _arrive(self, *, stream: bool, workspace: int) -> None:
        if self.on_device and not stream:
            make_room(self.device, workspace, sparing=self)
            return
        if self.on_device:
            self.leave()
        make_room(self.device, workspace + (self.streamed_bytes if stream else self.nbytes), sparing=self)
        for block in self._rest if stream else self._all():
            block.to_device()
        if stream:
            modules, blocks = zip(*self._streamed, strict=True)
            self._stream = Stream(self.network, modules, blocks)
        else:
            self.on_device = True

    def _all(self) -> list[Block]:
        return [*(block for _, block in self._streamed), *self._rest]


def make_room(device: torch.device, needed: int, *, sparing: Resident | None = None) -> None:
    """Moves idle networks off the device, the longest unused first, until that many bytes are free, or none is left."""
    with _LOCK:
        idle = sorted(_idle(device), key=lambda resident: resident._last_use)
        for resident in idle:
            if free_bytes(device) >= needed:
                return
            if resident is not sparing:
                resident.leave()


def available_bytes(device: torch.device) -> int:
    """Bytes of the device that a call can have: the free ones, and those of networks that idle."""
    with _LOCK:
        return free_bytes(device) + sum(resident.nbytes for resident in _idle(device))


def free_bytes(device: torch.device) -> int:
    """Bytes that torch can still allocate on a CUDA device, within the share that this process was given."""
    free, total = torch.cuda.mem_get_info(device)
    reserved, allocated = torch.cuda.memory_reserved(device), torch.cuda.memory_allocated(device)
    share = int(total * torch.cuda.memory.get_per_process_memory_fraction(device)) - reserved
    return max(0, min(free, share)) + reserved - allocated


def _idle(device: torch.device) -> list[Resident]:
    return [one for one in _RESIDENTS if one.movable and one.device == device and one.on_device and one.idle]


def _give_back(device: torch.device) -> None:
    """Lets other sizes use the freed memory, which torch keeps in pieces of the sizes that were."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _blocks(network: Any, device: torch.device) -> tuple[list[tuple[nn.Module, Block]], list[Block]]:
    """A block for each module that can be streamed, and the blocks of all other tensors."""
    modules = list(network.blocks()) if hasattr(network, "blocks") else []
    streamed = [(module, Block(_tensors(module), device)) for module in modules]
    taken = {id(tensor) for _, block in streamed for tensor in block.tensors}
    rest = [tensor for tensor in _tensors(network) if id(tensor) not in taken]
    return streamed, [Block(rest, device)]


def _tensors(module: nn.Module) -> list[torch.Tensor]:
    return [*module.parameters(), *module.buffers()]
