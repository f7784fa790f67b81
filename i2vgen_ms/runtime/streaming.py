"""Streaming: a network's blocks come to the device one after the other, each while the one before it computes.

Given modules in the order in which they run, and their blocks. Only the timing changes, not a number.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from i2vgen_ms.runtime.block import Block
from i2vgen_ms.runtime.parking import Parking


class Stream:
    """Streams `blocks[i]` in time for `modules[i]`, in two buffers; one forward of `root` at a time.

    A module that runs out of turn is waited for, so that the order is a matter of speed alone. What `root` puts on a
    `shelf` of its own is parked on the host meanwhile. `close` ends it.
    """

    def __init__(self, root: nn.Module, modules: Sequence[nn.Module], blocks: Sequence[Block]) -> None:
        self._blocks = list(blocks)
        self._lock = threading.RLock()
        device = blocks[0].device
        size = max(block.nbytes for block in blocks)
        self._buffers = [torch.empty(size, dtype=torch.uint8, device=device) for _ in range(2)]
        self._holds: list[int | None] = [None, None]  # which block each buffer holds, or will hold soon
        self._views = [[block.views(buffer[: block.nbytes]) for block in blocks] for buffer in self._buffers]
        self._copies = _Copies(device)
        self._fetch(0)  # before the hooks, which would stay behind if there were no memory for it
        self._hooks: list[Any] = [
            root.register_forward_pre_hook(lambda *_: self._enter()),
            root.register_forward_hook(lambda *_: self._leave(), always_call=True),
        ]
        self._root = cast(Any, root)
        if hasattr(root, "shelf"):
            self._root.shelf = partial(Parking, device)
        for index, module in enumerate(modules):
            self._hooks.append(module.register_forward_pre_hook(lambda *_, i=index: self._before(i)))
            self._hooks.append(module.register_forward_hook(lambda *_, i=index: self._after(i), always_call=True))

    def close(self) -> None:
        """Ends streaming; the modules have their tensors on the host."""
        with self._lock:
            for hook in self._hooks:
                hook.remove()
            if hasattr(self._root, "shelf"):
                self._root.shelf = list
            for block in self._blocks:
                block.to_host()
            self._copies.finish()
            self._views, self._buffers = [], []

    def _enter(self) -> None:
        self._lock.acquire()

    def _leave(self) -> None:
        self._lock.release()

    def _before(self, index: int) -> None:
        if index not in self._holds:
            self._fetch(index)
        slot = self._holds.index(index)
        self._copies.wait_for_copy(slot)
        self._blocks[index].point_at(self._views[slot][index])
        following = (index + 1) % len(self._blocks)
        if following not in self._holds:
            self._fetch(following, keep=slot)

    def _after(self, index: int) -> None:
        if index in self._holds:
            self._copies.computed(self._holds.index(index))

    def _fetch(self, index: int, keep: int | None = None) -> None:
        """Begins to copy a block into the buffer that is not `keep`, once what it held has been computed with."""
        slot = 0 if keep is None else 1 - keep
        self._holds[slot] = index
        block = self._blocks[index]
        self._copies.begin(slot, self._buffers[slot][: block.nbytes], block.host())


class _Copies:
    """Copies into two buffers on a stream of their own, ordered with the computing stream by events."""

    def __init__(self, device: torch.device) -> None:
        self._beside = device.type == "cuda"
        if self._beside:
            self._device = device
            self._stream = torch.cuda.Stream(device)
            self._copied = [torch.cuda.Event(), torch.cuda.Event()]
            self._computed = [torch.cuda.Event(), torch.cuda.Event()]
            # The buffers are fresh memory that an earlier tensor's kernels may still use.
            self._stream.wait_stream(torch.cuda.current_stream(device))

    def begin(self, slot: int, target: Tensor, source: Tensor) -> None:
        with torch.cuda.stream(self._stream) if self._beside else nullcontext():
            if self._beside:
                self._stream.wait_event(self._computed[slot])
            target.copy_(source, non_blocking=self._beside)
            if self._beside:
                self._copied[slot].record(self._stream)

    def wait_for_copy(self, slot: int) -> None:
        if self._beside:
            torch.cuda.current_stream(self._device).wait_event(self._copied[slot])

    def computed(self, slot: int) -> None:
        if self._beside:
            self._computed[slot].record(torch.cuda.current_stream(self._device))

    def finish(self) -> None:
        """The buffers may be freed after this."""
        if self._beside:
            torch.cuda.current_stream(self._device).wait_stream(self._stream)
